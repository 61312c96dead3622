"""What distillation objectives share: the student's own cross-entropy, and what each teacher teaches.

L = base_share * CE + weight * sum over teachers of share * part. Teachers and student see the same images; weight and
temperature may move over the epochs, as functions of the epoch's number alone.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vitops.config.objectives import Distillation as Section
from vitops.config.objectives import Ramp
from vitops.config.objectives import SoftTargets as SoftSection
from vitops.losses.cross_entropy import label, summed
from vitops.losses.label_smoothing import smoothed_cross_entropy
from vitops.losses.objective import Contributions, Objective
from vitops.losses.teacher import Teacher, frozen
from vitops.models.heads import predict
from vitops.models.tap import Tapped


def scheduled(value: float | Ramp, epoch: int) -> float:
    """A knob's value in an epoch."""
    return value.at(epoch) if isinstance(value, Ramp) else value


def non_targets(logits: Tensor, classes: Tensor) -> Tensor:
    """``logits`` (B, C) without the column of each row's class (B,), in order: (B, C - 1)."""
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, columns + (columns >= classes[:, None]))  # (B, C - 1)


class Distillation(Objective):
    """A student and its teachers, each the model of a role. Raises UsageError for a role that nobody fills."""

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        super().__init__(config, model=model, teachers=teachers, counts=counts)
        whole = sum(config.teachers.values())
        # In an order of their own: a mapping's is in no stage key, but sums and initial weights follow it.
        self.shares = {role: config.teachers[role] / whole for role in sorted(config.teachers)}
        self._guides = {role: self._guide(role) for role in self.shares}
        self.on_epoch(0)

    def _guide(self, role: str) -> Teacher:
        return Teacher(
            frozen(self.teachers, role, objective=self.config.kind),
            student=self.model,
            classes=len(self.counts),
            size=self.config.teacher_size,
            antialias=self.config.teacher_antialias,
            renormalize=self.config.teacher_renormalize,
        )

    @property
    def base_share(self) -> float:
        """Factor of the student's own cross-entropy."""
        return 1.0

    def student(self, images: Tensor) -> Tapped:
        """The student's forward pass for ``images`` (B, 3, H, W): what its cross-entropy and its teachers judge."""
        return Tapped(predict(self.model, images))

    @abstractmethod
    def parts(self, student: Tapped, teacher: Teacher, *, role: str, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        """What one teacher teaches for a micro-batch: named scalars."""

    def on_epoch(self, epoch: int) -> None:
        self._weight = scheduled(self.config.weight, epoch)

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        student = self.student(sample["input"])
        base = smoothed_cross_entropy(student.logits, label(sample), smoothing=self.config.label_smoothing)
        parts = {"base": self.base_share * base}
        for role, share in self.shares.items():
            taught = self.parts(student, self._guides[role], role=role, sample=sample)
            for name, part in taught.items():
                part = self._weight * share * part
                parts[name] = parts[name] + part if name in parts else part
        return summed(parts, logits=student.logits, sample=sample)


class SoftTargets(Distillation):
    """Distillation with a temperature."""

    config: SoftSection

    def on_epoch(self, epoch: int) -> None:
        super().on_epoch(epoch)
        self.temperature = scheduled(self.config.temperature, epoch)
