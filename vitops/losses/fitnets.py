"""FitNets: a projection of the student's features must equal the teacher's, by mean squared error.

Source: Romero et al. (ICLR 2015), "FitNets: Hints for Thin Deep Nets", equation 3. It is trained together with the
labels here, not as a stage before them; the projection is a 1 x 1 convolution, and the larger map is pooled to the
smaller one, so that a ViT may learn from a CNN.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitops.config.objectives import FitNets as Section
from vitops.losses.distillation import Distillation
from vitops.losses.teacher import Teacher
from vitops.models.tap import Tap, Tapped


def same_size(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (B, D, h, w), each pooled to the smaller height and width of the two.

    The means are those of adaptive average pooling, whose backward is not deterministic on CUDA: products with fixed
    matrices are.
    """
    height, width = (min(sides) for sides in zip(ours.shape[2:], theirs.shape[2:], strict=True))
    return _pooled(ours, height, width), _pooled(theirs, height, width)


def _pooled(features: Tensor, height: int, width: int) -> Tensor:
    rows, columns = (_means(*sizes).to(features) for sizes in zip(features.shape[2:], (height, width), strict=True))
    return rows @ features @ columns.T  # (height, h) (B, D, h, w) (w, width)


def _means(size: int, parts: int) -> Tensor:
    """(parts, size): each row the mean over its part of a side, the parts as even as they can be."""
    places, part = torch.arange(size), torch.arange(parts)[:, None]
    inside = (places >= part * size // parts) & (places < -(-(part + 1) * size // parts))
    return inside / inside.sum(1, keepdim=True)


class FitNets(Distillation):
    """L = CE + weight * MSE(projection of the student's map, teacher's map). The projection leaves with the training.

    Raises UsageError for a tap that a model does not have.
    """

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        super().__init__(config, model=model, teachers=teachers, counts=counts)
        self._tap = Tap(model, (config.student_tap,), key="student_tap")
        self._taps = {role: Tap(self.teachers[role], (config.teacher_tap,), key="teacher_tap") for role in self.shares}
        projections = {
            f"to_{role}": nn.Conv2d(self._tap.widths[0], tap.widths[0], kernel_size=1)
            for role, tap in self._taps.items()
        }
        self.auxiliary = nn.ModuleDict(projections)

    def student(self, images: Tensor) -> Tapped:
        return self._tap(images)

    def parts(self, student: Tapped, teacher: Teacher, *, role: str, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            theirs = self._taps[role](teacher.view(sample["input"])).features[0].map.float()
        ours = self.auxiliary[f"to_{role}"](student.features[0].map.float())
        return {"hint": F.mse_loss(*same_size(ours, theirs))}
