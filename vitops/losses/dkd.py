"""DKD: knowledge distillation taken apart into the target against the rest, and the rest among themselves.

Source: Zhao et al. (CVPR 2022), "Decoupled Knowledge Distillation", equation 7. The authors let the whole term grow
over the first 20 epochs on CIFAR: ``weight: {kind: linear, start: 0.05, end: 1, epochs: 19}``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vitops.config.objectives import Dkd as Section
from vitops.losses.cross_entropy import heavier, label
from vitops.losses.distillation import SoftTargets, non_targets
from vitops.losses.teacher import Teacher
from vitops.models.tap import Tapped


def tckd(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL of (target, all others) between ``teacher`` and ``student`` (logits (B, C)), mean over the batch."""
    classes = heavier(target)
    ours, theirs = (_binary(logits.float() / temperature, classes) for logits in (student, teacher))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def nckd(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL of the distributions over the C - 1 non-target classes, mean over the batch."""
    classes = heavier(target)
    ours, theirs = (
        F.log_softmax(non_targets(logits.float(), classes) / temperature, dim=1) for logits in (student, teacher)
    )
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _binary(logits: Tensor, classes: Tensor) -> Tensor:
    """Log-probabilities (B, 2) of the class and of all others together."""
    pair = logits.gather(1, classes[:, None]), non_targets(logits, classes).logsumexp(1, keepdim=True)
    return F.log_softmax(torch.cat(pair, dim=1), dim=1)


class Dkd(SoftTargets):
    """L = CE + alpha * TCKD + beta * NCKD; of a soft label the heavier class is the target."""

    config: Section

    def parts(self, student: Tapped, teacher: Teacher, *, role: str, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        pair, target = (student.logits, teacher.logits(sample["input"], sample.get("position"))), label(sample)
        return {
            "target": self.config.alpha * tckd(*pair, target, temperature=self.temperature),
            "nontarget": self.config.beta * nckd(*pair, target, temperature=self.temperature),
        }
