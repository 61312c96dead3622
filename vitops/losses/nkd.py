"""NKD: distillation whose non-target classes are normalised among themselves, so that the two can be equal.

Source: Yang et al. (ICCV 2023, arXiv 2303.13005), "From Knowledge Distillation to Self-Knowledge Distillation",
section 3.1; what its text leaves open is as in its repository (yzd-v/cls_KD).
"""

import torch.nn.functional as F
from torch import Tensor

from vitops.config.objectives import Nkd as Section
from vitops.losses.cross_entropy import heavier, label
from vitops.losses.distillation import SoftTargets, non_targets
from vitops.losses.teacher import Teacher
from vitops.models.tap import Tapped


def nkd_target(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """- mean of q_y * log p_y, for logits (B, C), without temperature: CE weighted by the teacher's confidence.

    ``target``: (B,) classes or (B, C) soft labels, of which only the heavier class is the target.
    """
    classes = heavier(target)[:, None]  # (B, 1)
    confidence = F.softmax(teacher.float(), dim=1).gather(1, classes)
    return -(confidence * F.log_softmax(student.float(), dim=1).gather(1, classes)).mean()


def nkd_nontarget(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """T^2 * cross-entropy of the two distributions over the C - 1 classes other than the target, mean over the batch.

    ``student``, ``teacher``: logits (B, C); ``target`` as in ``nkd_target``. 0 for two classes.
    """
    classes = heavier(target)
    ours, theirs = (non_targets(logits.float(), classes) / temperature for logits in (student, teacher))
    return temperature**2 * F.cross_entropy(ours, F.softmax(theirs, dim=1))


class Nkd(SoftTargets):
    """L = CE + target part + gamma * non-target part; the cross-entropy keeps its full weight."""

    config: Section

    def parts(self, student: Tapped, teacher: Teacher, *, role: str, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        pair, target = (student.logits, teacher.logits(sample["input"], sample.get("position"))), label(sample)
        return {
            "target": nkd_target(*pair, target),
            "nontarget": self.config.gamma * nkd_nontarget(*pair, target, temperature=self.temperature),
        }
