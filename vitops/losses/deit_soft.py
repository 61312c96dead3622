"""Soft DeiT: the DIST token learns the teacher's softened distribution, CLS the label.

Hard DeiT is ``deit_lt`` without ``drw``.
Source: Touvron et al. (ICML 2021), "Training data-efficient image transformers & distillation through attention",
equation 2; its KL is a mean over batch *and* classes in the official code, and so it is here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from vitops.config.objectives import DeitSoft as Section
from vitops.errors import UsageError
from vitops.losses.distillation import SoftTargets
from vitops.losses.teacher import Teacher
from vitops.models.heads import is_distilled, two_heads
from vitops.models.tap import Tapped


def soft_distillation(dist_logits: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(teacher / T || DIST / T) of logits (B, C), a mean over batch and classes, in float32."""
    ours, theirs = (F.log_softmax(logits.float() / temperature, dim=1) for logits in (dist_logits, teacher))
    return temperature**2 * F.kl_div(ours, theirs, reduction="sum", log_target=True) / ours.numel()


@dataclass(frozen=True)
class BothLogits(Tapped):
    """Logits of CLS, and those of DIST (B, C) beside them."""

    dist: Tensor = field(kw_only=True)


class DeitSoft(SoftTargets):
    """L = (1 - alpha) * CE(CLS) + alpha * T^2 * KL(teacher || DIST). The accuracy it notes is that of CLS.

    Raises UsageError for a student without a distillation token.
    """

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        if not is_distilled(model):
            raise UsageError(f"objective deit_soft needs a distilled model, which {type(model).__name__} is not")
        super().__init__(config, model=model, teachers=teachers, counts=counts)

    @property
    def base_share(self) -> float:
        return 1 - self.config.alpha

    def student(self, images: Tensor) -> "BothLogits":
        found = two_heads(self.model, images)
        return BothLogits(found.cls_logits, dist=found.dist_logits)

    def parts(self, student: Tapped, teacher: Teacher, *, role: str, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(student, BothLogits)
        soft = soft_distillation(
            student.dist, teacher.logits(sample["input"], sample.get("position")), temperature=self.temperature
        )
        return {"distill": self.config.alpha * soft}
