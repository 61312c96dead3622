"""Hinton's knowledge distillation: the student matches the teacher's softened distribution.

Source: Hinton, Vinyals, Dean (2015), "Distilling the Knowledge in a Neural Network", section 2; shares (1 - alpha) and
alpha, and cross-entropy in place of KL (same gradients), as in yzd-v/cls_KD.
"""

import torch.nn.functional as F
from torch import Tensor

from vitops.config.objectives import Kd as Section
from vitops.losses.distillation import SoftTargets
from vitops.losses.teacher import Teacher
from vitops.models.tap import Tapped


def kd_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 * CE(softmax(``teacher`` / T) -> softmax(``student`` / T)) of logits (B, C), mean over the batch, float32."""
    target = F.softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * F.cross_entropy(student.float() / temperature, target)


class Kd(SoftTargets):
    """L = (1 - alpha) * CE + alpha * T^2 * CE(teacher -> student), both softened by T."""

    config: Section

    @property
    def base_share(self) -> float:
        return 1 - self.config.alpha

    def parts(self, student: Tapped, teacher: Teacher, *, role: str, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        soft = kd_loss(
            student.logits, teacher.logits(sample["input"], sample.get("position")), temperature=self.temperature
        )
        return {"distill": self.config.alpha * soft}
