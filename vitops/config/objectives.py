"""What a training stage minimises: one class per objective in ``vitops/losses``."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vitops.config.base import Section


class Drw(Section):
    """Deferred re-weighting: class-balanced weights from an epoch on (effective number of samples)."""

    epoch: int = Field(ge=1)
    """First epoch (counted from 0) with weights."""
    beta: float = Field(0.9999, ge=0, lt=1)


class CrossEntropy(Section):
    """Cross-entropy on hard or mixed labels."""

    implementation: ClassVar[str] = "vitops.losses.cross_entropy:CrossEntropy"
    kind: Literal["cross_entropy"] = "cross_entropy"
    drw: Drw | None = None


class Ldam(Section):
    """Label-distribution-aware margins on cosine logits, with deferred re-weighting."""

    implementation: ClassVar[str] = "vitops.losses.ldam:Ldam"
    kind: Literal["ldam"] = "ldam"
    max_margin: float = Field(0.5, gt=0, le=1)
    scale: float = Field(30.0, gt=0)
    drw: Drw | None = None


class DeitLt(Section):
    """DeiT-LT: hard distillation into the DIST token, re-weighted from an epoch on."""

    implementation: ClassVar[str] = "vitops.losses.deit_lt:DeitLt"
    kind: Literal["deit_lt"] = "deit_lt"
    alpha: float = Field(0.5, ge=0, le=1)
    """Share of the distillation part."""
    drw: Drw | None = None
    """Weights of the distillation part; null never re-weights."""
    mix_off_in_drw: bool = True
    """Switch mixup, cutmix and label smoothing off from the DRW epoch on."""
    teacher_size: int | None = Field(None, ge=8)
    """Side the teacher's images are resized to; null feeds the student's images unchanged."""
    teacher_antialias: bool = False
    teacher_renormalize: bool = False
    """Re-normalise to the teacher's mean and std (the official code does not)."""


class Nvit(Section):
    """Guidance while pruning and fine-tuning: KL to the dense model plus the distilled objective of the student."""

    implementation: ClassVar[str] = "vitops.losses.nvit:Nvit"
    kind: Literal["nvit"] = "nvit"
    kl_weight: float = Field(100.0, ge=0)
    """Weight of the batch-mean KL to the unpruned model."""
    temperature: float = Field(3.0, gt=0)
    distill: DeitLt = DeitLt()


def needs_teacher(objective: "CrossEntropy | Ldam | DeitLt | Nvit") -> bool:
    """Whether the objective reads a teacher's predictions."""
    return isinstance(objective, Nvit) or (isinstance(objective, DeitLt) and objective.alpha > 0)


def drw_of(objective: "CrossEntropy | Ldam | DeitLt | Nvit") -> tuple[str, Drw | None]:
    """Where the objective keeps its deferred re-weighting (a key relative to it), and the section."""
    if isinstance(objective, Nvit):
        return "distill.drw", objective.distill.drw
    return "drw", objective.drw


Objective = Annotated[CrossEntropy | Ldam | DeitLt | Nvit, Field(discriminator="kind")]
