"""What a training stage minimises: one class per objective in ``vitops/losses``.

Laws: what a section says of the recipe, the model and the pipeline around it stands in its own class, so that one more
objective is one more class and changes no stage key of the others. A combination that makes no sense is refused here,
with the reason.
"""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from vitops.config.base import KeyProblem, Section, later_field
from vitops.config.datasets import Name


class Drw(Section):
    """Deferred re-weighting: class-balanced weights from an epoch on (effective number of samples)."""

    epoch: int = Field(ge=1)
    """First epoch (counted from 0) with weights."""
    beta: float = Field(0.9999, ge=0, lt=1)


class Ramp(Section):
    """A number that moves over the epochs."""

    kind: Literal["linear", "cosine"] = "linear"
    start: float = Field(ge=0)
    """Its value in epoch 0."""
    end: float = Field(ge=0)
    """Its value from epoch ``epochs`` on."""
    epochs: int = Field(ge=1)

    def at(self, epoch: int) -> float:
        """The value in ``epoch`` (counted from 0)."""
        done = min(epoch / self.epochs, 1.0)
        share = done if self.kind == "linear" else (1 - math.cos(math.pi * done)) / 2
        return self.start + share * (self.end - self.start)


def _form(value: Any) -> str:
    return "[ramp]" if isinstance(value, dict | Ramp) else "[number]"


Scheduled = Annotated[
    Annotated[float, Field(ge=0), Tag("[number]")] | Annotated[Ramp, Tag("[ramp]")], Discriminator(_form)
]
"""A number, or a mapping that lets it move over the epochs."""


class ObjectiveSection(Section):
    """What every objective can be asked."""

    kind: str

    def roles(self) -> tuple[str, ...]:
        """Roles of the frozen models whose answers it reads."""
        return ()

    def check_recipe(self, *, epochs: int, mixed_smoothing: float) -> None:
        """Raise KeyProblem, its key relative to the recipe, where this objective makes no sense in it.

        ``mixed_smoothing``: label smoothing that mixup applies, 0 where there is no mixup.
        """

    def check_model(self, model: Section) -> None:
        """Raise KeyProblem, its key relative to the training stage, for a ``model:`` it makes no sense with."""


class CrossEntropy(ObjectiveSection):
    """Cross-entropy on hard or mixed labels."""

    implementation: ClassVar[str] = "vitops.losses.cross_entropy:CrossEntropy"
    kind: Literal["cross_entropy"] = "cross_entropy"
    drw: Drw | None = None

    def check_recipe(self, *, epochs: int, mixed_smoothing: float) -> None:
        """The DRW epoch must come."""
        check_drw("objective.drw", self.drw, epochs=epochs)


class LabelSmoothing(ObjectiveSection):
    """Cross-entropy on smoothed labels."""

    implementation: ClassVar[str] = "vitops.losses.label_smoothing:LabelSmoothing"
    kind: Literal["label_smoothing"] = "label_smoothing"
    smoothing: float = Field(0.1, ge=0, lt=1)
    spread: Literal["all", "others"] = "all"
    """``all``: the target keeps 1 - e + e/C (timm, torch); ``others``: it keeps 1 - e, the others share e."""

    def check_recipe(self, *, epochs: int, mixed_smoothing: float) -> None:
        """Labels must not be smoothed twice."""
        check_smoothing(self.smoothing, mixed_smoothing=mixed_smoothing)


class TfKd(ObjectiveSection):
    """Tf-KD's regularisation form (Tf-KD_reg): a virtual teacher that is nearly sure of the label."""

    implementation: ClassVar[str] = "vitops.losses.tf_kd:TfKd"
    kind: Literal["tfkd_reg"] = "tfkd_reg"
    alpha: float = Field(0.1, ge=0, le=1)
    """Share of the virtual teacher's part."""
    temperature: float = Field(20.0, gt=0)
    """Of the virtual teacher alone."""
    multiplier: float = Field(100.0, ge=0)
    """Factor of the virtual teacher's part, whose KL is a mean over batch and classes."""


class LogitAdjustment(ObjectiveSection):
    """Cross-entropy of logits shifted by the class frequencies; ``tau`` 1 is balanced softmax."""

    implementation: ClassVar[str] = "vitops.losses.logit_adjustment:LogitAdjustment"
    kind: Literal["logit_adjustment"] = "logit_adjustment"
    tau: float = Field(1.0, ge=0)
    """Factor of the log prior; 0 is plain cross-entropy."""


class Ldam(ObjectiveSection):
    """Label-distribution-aware margins on cosine logits, with deferred re-weighting."""

    implementation: ClassVar[str] = "vitops.losses.ldam:Ldam"
    kind: Literal["ldam"] = "ldam"
    max_margin: float = Field(0.5, gt=0, le=1)
    scale: float = Field(30.0, gt=0)
    drw: Drw | None = None

    def check_recipe(self, *, epochs: int, mixed_smoothing: float) -> None:
        """The DRW epoch must come."""
        check_drw("objective.drw", self.drw, epochs=epochs)

    def check_model(self, model: Section) -> None:
        """Margins are angles: the head must give cosines."""
        if getattr(model, "head", None) != "cosine":
            raise KeyProblem("model.head", "must be cosine for ldam")


class Paco(ObjectiveSection):
    """PaCo: supervised contrast with class centres, a momentum copy and a queue; for a linear head."""

    implementation: ClassVar[str] = "vitops.losses.paco:Paco"
    kind: Literal["paco"] = "paco"
    temperature: float = Field(0.05, gt=0)
    """Divides the cosines of features: 0.05 on CIFAR, 0.2 on ImageNet-LT and iNaturalist."""
    queue: int = Field(1024, ge=1)
    """Keys that are remembered: 1024 on CIFAR, 8192 else."""
    dim: int = Field(32, ge=1)
    """Width of the projected features: 32 on CIFAR, 128 else."""
    momentum: float = Field(0.999, ge=0, lt=1)
    """Of the copy that makes the keys, per step."""
    alpha: float = Field(0.01, ge=0)
    """Weight of each feature of the same class: 0.01 on CIFAR, 0.05 else."""
    beta: float = Field(1.0, gt=0)
    """Weight of the class centre."""
    gamma: float = Field(1.0, ge=0)
    """Weight of the features among what a row is contrasted with."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability that the second view is mirrored (0 for digits)."""

    def check_model(self, model: Section) -> None:
        """Class centres are one linear layer over unscaled features."""
        if getattr(model, "head", None) == "cosine":
            raise KeyProblem("model.head", "must be linear for paco: its class centres have lengths of their own")
        if "_distilled_" in getattr(model, "name", ""):
            raise KeyProblem("model.name", "must have one head for paco, and a distilled model has two")


class DeitLt(ObjectiveSection):
    """DeiT-LT: hard distillation into the DIST token, re-weighted from an epoch on. Without ``drw``: hard DeiT."""

    implementation: ClassVar[str] = "vitops.losses.deit_lt:DeitLt"
    kind: Literal["deit_lt"] = "deit_lt"
    alpha: float = Field(0.5, ge=0, le=1)
    """Share of the distillation part."""
    drw: Drw | None = None
    """Weights of the distillation part; null never re-weights."""
    weight_base: bool = later_field(False)
    """Re-weight the CLS part as well from the DRW epoch on (the default recipe does not)."""
    mix_off_in_drw: bool = True
    """Switch mixup, cutmix and label smoothing off from the DRW epoch on."""
    teacher_size: int | None = Field(None, ge=8)
    """Side the teacher's images are resized to; null feeds the student's images unchanged."""
    teacher_antialias: bool = False
    teacher_renormalize: bool = False
    """Re-normalise to the teacher's mean and std (the official code does not)."""

    def roles(self) -> tuple[str, ...]:
        """The teacher, while it counts."""
        return ("teacher",) if self.alpha > 0 else ()

    def check_recipe(self, *, epochs: int, mixed_smoothing: float) -> None:
        """The DRW epoch must come."""
        check_drw("objective.drw", self.drw, epochs=epochs)

    def check_model(self, model: Section) -> None:
        """There must be a DIST token to distil into."""
        check_distilled(model, kind=self.kind)


class Nvit(ObjectiveSection):
    """Guidance while pruning and fine-tuning: KL to the dense model plus the distilled objective of the student."""

    implementation: ClassVar[str] = "vitops.losses.nvit:Nvit"
    kind: Literal["nvit"] = "nvit"
    kl_weight: float = Field(100.0, ge=0)
    """Weight of the batch-mean KL to the unpruned model."""
    temperature: float = Field(3.0, gt=0)
    distill: DeitLt = DeitLt()

    def roles(self) -> tuple[str, ...]:
        """The distilled objective's teacher; the dense model is the pruning stage's own."""
        return self.distill.roles()

    def check_recipe(self, *, epochs: int, mixed_smoothing: float) -> None:
        """The DRW epoch must come."""
        check_drw("objective.distill.drw", self.distill.drw, epochs=epochs)

    def check_model(self, model: Section) -> None:
        """A model that is trained from scratch has no dense one behind it."""
        raise KeyProblem("objective", "nvit guides pruning and fine-tuning; use deit_lt or cross_entropy")


class Distillation(ObjectiveSection):
    """What objectives with teachers share: L = the student's own cross-entropy + weight * sum of share * part."""

    teachers: dict[Name, Annotated[float, Field(gt=0)]] = Field(default={"teacher": 1.0}, min_length=1)
    """Weight of each teacher by role; only their ratio counts."""
    weight: Scheduled = 1.0
    """Factor of all that the teachers teach; a number, or a mapping that lets it move over the epochs."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Of the student's own cross-entropy alone."""
    teacher_size: int | None = Field(None, ge=8)
    """Side the teachers' images are resized to; null feeds the student's images unchanged."""
    teacher_antialias: bool = False
    teacher_renormalize: bool = False
    """Re-normalise to each teacher's mean and std; false shows it the very tensor that the student sees."""

    def roles(self) -> tuple[str, ...]:
        """All teachers."""
        return tuple(self.teachers)

    def check_recipe(self, *, epochs: int, mixed_smoothing: float) -> None:
        """Labels must not be smoothed twice, and ramps must arrive."""
        check_smoothing(self.label_smoothing, mixed_smoothing=mixed_smoothing)
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Ramp) and value.epochs >= epochs:
                raise KeyProblem(f"objective.{name}.epochs", f"must be below epochs ({epochs}), got {value.epochs}")


class SoftTargets(Distillation):
    """Distillation that softens logits by a temperature."""

    temperature: Scheduled = 1.0
    """Divides the logits of student and teachers; a number, or a mapping that lets it move over the epochs."""

    @model_validator(mode="after")
    def _warm(self) -> "SoftTargets":
        found = self.temperature
        if min((found.start, found.end) if isinstance(found, Ramp) else (found,)) <= 0:
            raise KeyProblem("temperature", "must be greater than 0")
        return self


class Kd(SoftTargets):
    """Hinton's knowledge distillation: (1 - alpha) * CE + alpha * T^2 * CE of the softened distributions."""

    implementation: ClassVar[str] = "vitops.losses.kd:Kd"
    kind: Literal["kd"] = "kd"
    alpha: float = Field(0.5, ge=0, le=1)
    """Share of the teachers' part."""
    temperature: Scheduled = 4.0


class Dkd(SoftTargets):
    """Decoupled knowledge distillation: target and non-target classes weighted apart."""

    implementation: ClassVar[str] = "vitops.losses.dkd:Dkd"
    kind: Literal["dkd"] = "dkd"
    alpha: float = Field(1.0, ge=0)
    """Weight of the binary part (target against all others)."""
    beta: float = Field(8.0, ge=0)
    """Weight of the part among the non-target classes."""
    temperature: Scheduled = 4.0


class Nkd(SoftTargets):
    """NKD: target class weighted by the teacher's confidence, non-target classes normalised among themselves."""

    implementation: ClassVar[str] = "vitops.losses.nkd:Nkd"
    kind: Literal["nkd"] = "nkd"
    gamma: float = Field(1.5, ge=0)
    """Weight of the non-target part: 1.5 for CNNs, 1.0 for ViTs on ImageNet, 3.5 (with T = 3) on CIFAR-100."""


class DeitSoft(SoftTargets):
    """Soft DeiT: the DIST token learns the teacher's softened distribution."""

    implementation: ClassVar[str] = "vitops.losses.deit_soft:DeitSoft"
    kind: Literal["deit_soft"] = "deit_soft"
    alpha: float = Field(0.1, ge=0, le=1)
    """Share of the teachers' part."""
    temperature: Scheduled = 3.0

    def check_model(self, model: Section) -> None:
        """There must be a DIST token to distil into."""
        check_distilled(model, kind=self.kind)


class FitNets(Distillation):
    """FitNets: a projection of the student's features must equal the teacher's (mean squared error)."""

    implementation: ClassVar[str] = "vitops.losses.fitnets:FitNets"
    kind: Literal["fitnets"] = "fitnets"
    student_tap: int | None = None
    """Stage (or block) whose output is read, counted from 0, or from -1 backwards; null is the middle one."""
    teacher_tap: int | None = None
    weight: Scheduled = 100.0


class AttentionTransfer(Distillation):
    """Attention transfer: where the student's features are strong, the teacher's should be."""

    implementation: ClassVar[str] = "vitops.losses.attention_transfer:AttentionTransfer"
    kind: Literal["attention_transfer"] = "attention_transfer"
    student_taps: tuple[int, ...] | None = Field(None, min_length=1)
    """Stages (or blocks) whose outputs are read, counted from 0, or from -1 backwards; null is the middle one."""
    teacher_taps: tuple[int, ...] | None = Field(None, min_length=1)
    """Their partners in every teacher, one each."""
    weight: Scheduled = 1000.0

    @model_validator(mode="after")
    def _paired(self) -> "AttentionTransfer":
        ours, theirs = (len(taps or (None,)) for taps in (self.student_taps, self.teacher_taps))
        if ours != theirs:
            raise KeyProblem("teacher_taps", f"must be as many as student_taps ({ours}), got {theirs}")
        return self


class Uskd(ObjectiveSection):
    """USKD: distillation without a teacher, from soft labels made of the student's own features."""

    implementation: ClassVar[str] = "vitops.losses.uskd:Uskd"
    kind: Literal["uskd"] = "uskd"
    alpha: float = Field(1.0, ge=0)
    """Weight of the soft target label."""
    beta: float = Field(0.1, ge=0)
    """Weight of the ranked non-target labels."""
    mu: float = Field(0.005, ge=0)
    """Weight of the weak supervision of the middle features."""
    rank_mode: Literal["code", "paper"] = "code"
    """How classes are ranked: as in the official code (log-probabilities) or as its text says (probabilities)."""
    mid_tap: int | None = None
    """Stage (or block) whose output is read, counted from 0, or from -1 backwards; null is the middle one."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Of the student's own cross-entropy alone."""

    @model_validator(mode="after")
    def _teaches(self) -> "Uskd":
        if not self.alpha + self.beta + self.mu > 0:
            raise KeyProblem("alpha", "must be above 0, or beta, or mu: with all three 0 this is cross_entropy")
        return self

    def check_recipe(self, *, epochs: int, mixed_smoothing: float) -> None:
        """Mixed labels must hold two classes at most."""
        if mixed_smoothing > 0:
            raise KeyProblem(
                "mixup.label_smoothing",
                f"must be 0 with uskd, got {mixed_smoothing:g}: it reads the two classes of a mixed label, and of a "
                "smoothed one the second may be any. objective.label_smoothing smooths the cross-entropy alone",
            )


def check_drw(key: str, drw: Drw | None, *, epochs: int) -> None:
    """Raise KeyProblem at ``key``.epoch for a switch that never comes."""
    if drw and drw.epoch >= epochs:
        raise KeyProblem(f"{key}.epoch", f"must be below epochs ({epochs}), got {drw.epoch}")


def check_smoothing(smoothing: float, *, mixed_smoothing: float) -> None:
    """Raise KeyProblem where both the objective and mixup smooth the labels."""
    if smoothing > 0 and mixed_smoothing > 0:
        raise KeyProblem(
            "mixup.label_smoothing", f"must be 0, got {mixed_smoothing:g}: the objective smooths these labels itself"
        )


def check_distilled(model: Section, *, kind: str) -> None:
    """Raise KeyProblem for a model without a distillation token."""
    name = getattr(model, "name", None)
    if name is None or "_distilled_" not in name:
        key = "model.kind" if name is None else "model.name"
        raise KeyProblem(
            key,
            f"must be a distilled ViT for {kind}, e.g. timm's deit_tiny_distilled_patch16_224: this model has no DIST "
            "token to learn from the teacher. kd and nkd distil into any model",
        )


Objective = Annotated[
    CrossEntropy
    | Ldam
    | DeitLt
    | Nvit
    | LabelSmoothing
    | TfKd
    | LogitAdjustment
    | Kd
    | Dkd
    | Nkd
    | DeitSoft
    | FitNets
    | AttentionTransfer
    | Uskd
    | Paco,
    Field(discriminator="kind"),
]
