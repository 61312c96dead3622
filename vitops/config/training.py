"""How a model is trained: data order, augmentation, optimizer, schedule, averaging. All of it enters the stage key."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vitops.config.base import KeyProblem, Section, later_field
from vitops.config.models import Model
from vitops.config.objectives import Objective

RANDAUGMENT_PATTERN = (
    r"^rand(-(m\d{1,3}|n[1-9]\d?|p(0(\.\d{1,9})?|1(\.0{1,9})?)|mstd\d{1,3}(\.\d{1,9})?|mmax\d{1,3}|inc[01]"
    r"|t(weights|3aw?)))*$"
)
"""The sections that timm reads, each with a value that it takes: of others it ignores some and dies of some."""
_WEIGHTED_OPERATIONS = {"tweights": 15, "t3aw": 14}
"""Sets that are drawn from without putting back, and how many operations they have."""
Triple = tuple[float, float, float]


class Preprocessing(Section):
    """How an image becomes the model's input, at evaluation and in the package."""

    size: int = Field(ge=8, le=1024)
    """Input side in pixels."""
    resize: int | None = Field(None, ge=8, le=2048)
    """Shorter side before the centre crop; null resizes straight to ``size``."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _consistent(self) -> "Preprocessing":
        if self.resize is not None and self.resize < self.size:
            raise KeyProblem("resize", f"must be at least size ({self.size}), got {self.resize}")
        if min(self.std) <= 0:
            raise KeyProblem("std", f"must be positive, got {list(self.std)}")
        return self


class PadCrop(Section):
    """Zero padding, then a random crop of the original size."""

    kind: Literal["pad"] = "pad"
    padding: int = Field(4, ge=0)


class ResizedCrop(Section):
    """Random area and aspect ratio, resized to the input size."""

    kind: Literal["resized"] = "resized"
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area."""

    @model_validator(mode="after")
    def _ordered(self) -> "ResizedCrop":
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise KeyProblem("scale", f"must be two increasing shares in (0, 1], got {list(self.scale)}")
        return self


Crop = Annotated[PadCrop | ResizedCrop, Field(discriminator="kind")]


class Augment(Section):
    """Train-time transforms of one image, before normalisation (erasing after it)."""

    crop: Crop | None = None
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip (0 for digits)."""
    randaugment: str | None = Field(None, pattern=RANDAUGMENT_PATTERN)
    """timm's policy string, e.g. ``rand-m9-mstd0.5-inc1``: ``m`` magnitude, ``n`` operations per image, ``p``
    probability of each, ``mstd`` spread and ``mmax`` limit of the magnitude, ``inc`` 1 where more is to be stronger,
    ``t`` the set of operations (``weights``, ``3a``, ``3aw``)."""
    erasing: float = Field(0.0, ge=0, le=1)
    """Probability of random erasing with pixel noise."""

    @model_validator(mode="after")
    def _sections_agree(self) -> "Augment":
        sections = (self.randaugment or "rand").split("-")[1:]
        names = ["t" if section.startswith("t") else section.rstrip("0123456789.") for section in sections]
        if twice := [name for name in names if names.count(name) > 1]:
            raise KeyProblem("randaugment", f"must have each section at most once, got {twice[0]} again")
        count = next((int(section[1:]) for section in sections if section.startswith("n")), 2)  # timm's default
        for section in sections:
            if count > (most := _WEIGHTED_OPERATIONS.get(section, count)):
                raise KeyProblem(
                    "randaugment", f"must ask for at most n{most} of the {most} in {section}, got n{count}"
                )
        return self


class Mixup(Section):
    """timm's mixup and cutmix, applied to a whole micro-batch (which must be even)."""

    mixup: float = Field(0.8, ge=0)
    cutmix: float = Field(1.0, ge=0)
    switch: float = Field(0.5, ge=0, le=1)
    probability: float = Field(1.0, ge=0, le=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)


class Optimizer(Section):
    """A timm optimizer. Weight decay skips 1-D parameters and what the model excludes."""

    name: Literal["sgd", "adamw"]
    lr: float = Field(gt=0)
    """Learning rate of one full step (nothing is scaled behind your back)."""
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    """SGD's momentum; AdamW uses ``betas``."""
    nesterov: bool = later_field(False)
    """Nesterov's momentum, of SGD alone."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    decay_1d: bool = False
    """Also decay biases and norm weights (classic CNN recipes do)."""

    @model_validator(mode="after")
    def _consistent(self) -> "Optimizer":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise KeyProblem("betas", f"must lie in [0, 1), got {list(self.betas)}")
        if self.nesterov and self.name != "sgd":
            raise KeyProblem("nesterov", f"must be false: {self.name} has no momentum of that kind")
        return self


class Cosine(Section):
    """Linear warm-up, then half a cosine, per step."""

    kind: Literal["cosine"] = "cosine"
    warmup_epochs: float = Field(0, ge=0)
    warmup_lr: float = Field(1e-6, ge=0)
    min_lr: float = Field(1e-5, ge=0)


class MultiStep(Section):
    """Linear warm-up, then a constant rate multiplied by ``factor`` at each milestone epoch."""

    kind: Literal["multistep"] = "multistep"
    warmup_epochs: float = Field(0, ge=0)
    warmup_lr: float = Field(1e-6, ge=0)
    milestones: tuple[int, ...]
    factor: float = Field(0.01, gt=0, lt=1)

    @model_validator(mode="after")
    def _increasing(self) -> "MultiStep":
        if list(self.milestones) != sorted(set(self.milestones)):
            raise KeyProblem("milestones", f"must increase, got {list(self.milestones)}")
        return self


class Step(Section):
    """Linear warm-up, then a rate multiplied by ``factor`` after every ``every`` epochs."""

    kind: Literal["step"] = "step"
    warmup_epochs: float = Field(0, ge=0)
    warmup_lr: float = Field(1e-6, ge=0)
    every: int = Field(1, ge=1)
    factor: float = Field(0.98, gt=0, lt=1)


Schedule = Annotated[Cosine | MultiStep | Step, Field(discriminator="kind")]


class Radius(Section):
    """A radius of sharpness-aware minimisation from an epoch on."""

    epoch: int = Field(ge=1)
    """First epoch (counted from 0) with it."""
    rho: float = Field(ge=0)


class Sam(Section):
    """Sharpness-aware minimisation (Foret et al. 2021): two passes per step."""

    rho: float = Field(0.05, ge=0)
    """Radius of the first epoch, and of all of them without ``later``."""
    later: tuple[Radius, ...] = later_field(())
    """Radii that take over, in the order of their epochs."""
    adaptive: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> "Sam":
        epochs = [radius.epoch for radius in self.later]
        if epochs != sorted(set(epochs)):
            raise KeyProblem("later", f"must have increasing epochs, got {epochs}")
        return self

    def at(self, epoch: int) -> float:
        """The radius in ``epoch`` (counted from 0)."""
        return ([self.rho] + [radius.rho for radius in self.later if radius.epoch <= epoch])[-1]


class Recipe(Section):
    """Everything about a training but the architecture."""

    objective: Objective
    epochs: int = Field(ge=1)
    micro_batches: int = Field(4, ge=1)
    """M logical micro-batches of one step: the unit of randomness, BatchNorm and weighted means. Workers divide it."""
    micro_batch_size: int = Field(ge=1)
    effective_batch: int | None = later_field(None, ge=1)
    """Images of one step, in place of ``micro_batches``: as many micro-batches as that takes. Each worker accumulates
    its share of them, whatever the number of workers."""
    repeats: int = Field(1, ge=1)
    """Repeated augmentation: each drawn sample appears this many times in the epoch's stream."""
    preprocessing: Preprocessing
    augment: Augment = Augment()
    mixup: Mixup | None = None
    optimizer: Optimizer
    schedule: Schedule = Cosine()
    sam: Sam | None = None
    clip_grad: float | None = Field(None, gt=0)
    """Largest joint gradient norm; null clips nothing."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of the weight average kept beside the weights; null keeps none."""

    @model_validator(mode="after")
    def _counted(self) -> "Recipe":
        """``effective_batch`` as ``micro_batches``, the one of the two that is read and enters keys."""
        if self.effective_batch is None:
            return self
        if "micro_batches" in self.model_fields_set:
            raise KeyProblem(
                "effective_batch", "says what micro_batches says: leave one of them out, or set it to null here"
            )
        micro_batches, rest = divmod(self.effective_batch, self.micro_batch_size)
        if rest:
            raise KeyProblem(
                "effective_batch",
                f"must be a multiple of micro_batch_size ({self.micro_batch_size}), got {self.effective_batch}",
            )
        return self.model_copy(update={"micro_batches": micro_batches, "effective_batch": None})

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.mixup and self.micro_batch_size % 2:
            raise KeyProblem("micro_batch_size", f"must be even with mixup, got {self.micro_batch_size}")
        smoothing = self.mixup.label_smoothing if self.mixup else 0.0
        self.objective.check_recipe(epochs=self.epochs, mixed_smoothing=smoothing)
        if self.schedule.warmup_epochs >= self.epochs:
            warmup = self.schedule.warmup_epochs
            raise KeyProblem("schedule.warmup_epochs", f"must be below epochs ({self.epochs}), got {warmup:g}")
        return self


class Train(Recipe):
    """One training stage: an architecture and its recipe."""

    model: Model

    @model_validator(mode="after")
    def _fitting(self) -> "Train":
        self.objective.check_model(self.model)
        return self
