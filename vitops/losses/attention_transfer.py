"""Attention transfer: where the student's features are strong, the teacher's should be.

Source: Zagoruyko and Komodakis (ICLR 2017), "Paying More Attention to Attention", equation 2 with p = 2 (sums of
squares over channels), as a mean over places as in its repository. The larger map is pooled to the smaller one.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitops.config.objectives import AttentionTransfer as Section
from vitops.losses.distillation import Distillation
from vitops.losses.fitnets import same_size
from vitops.losses.teacher import Teacher
from vitops.models.tap import Tap, Tapped


def attention(features: Tensor) -> Tensor:
    """The map of mean squares over channels of ``features`` (B, D, h, w), at unit length: (B, h * w)."""
    return F.normalize(features.square().mean(1).flatten(1), dim=1)


def attention_loss(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference of the attention maps of two features (B, D, h, w), whose widths may differ."""
    first, second = same_size(ours.float(), theirs.float())
    return F.mse_loss(attention(first), attention(second))


class AttentionTransfer(Distillation):
    """L = CE + weight * sum over the pairs of taps of the attention loss.

    Raises UsageError for a tap that a model does not have.
    """

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        super().__init__(config, model=model, teachers=teachers, counts=counts)
        self._tap = Tap(model, config.student_taps or (None,), key="student_taps")
        self._taps = {
            role: Tap(self.teachers[role], config.teacher_taps or (None,), key="teacher_taps") for role in self.shares
        }

    def student(self, images: Tensor) -> Tapped:
        return self._tap(images)

    def parts(self, student: Tapped, teacher: Teacher, *, role: str, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            theirs = self._taps[role](teacher.view(sample["input"])).features
        pairs = zip(student.features, theirs, strict=True)
        return {"attention": torch.stack([attention_loss(a.map, b.map) for a, b in pairs]).sum()}
