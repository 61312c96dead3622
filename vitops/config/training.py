"""How a model is trained: data order and augmentation, optimizer, schedule, averaging. All of it enters the stage key."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vitops.config.base import Section
from vitops.config.models import Model
from vitops.config.objectives import Objective

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


class PadCrop(Section):
    """Zero padding, then a random crop of the original size."""

    kind: Literal["pad"] = "pad"
    padding: int = Field(4, ge=0)


class ResizedCrop(Section):
    """Random area and aspect ratio, resized to the input size."""

    kind: Literal["resized"] = "resized"
    scale: tuple[float, float] = (0.08, 1.0)


Crop = Annotated[PadCrop | ResizedCrop, Field(discriminator="kind")]


class Augment(Section):
    """Train-time transforms of one image, before normalisation (erasing after it)."""

    crop: Crop | None = None
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip (0 for digits)."""
    randaugment: str | None = None
    """timm's policy string, e.g. ``rand-m9-mstd0.5-inc1``."""
    erasing: float = Field(0.0, ge=0, le=1)
    """Probability of random erasing with pixel noise."""


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
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    decay_1d: bool = False
    """Also decay biases and norm weights (classic CNN recipes do)."""


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


Schedule = Annotated[Cosine | MultiStep, Field(discriminator="kind")]


class Sam(Section):
    """Sharpness-aware minimisation (Foret et al. 2021): two passes per step."""

    rho: float = Field(0.05, ge=0)
    adaptive: bool = False


class Recipe(Section):
    """Everything about a training but the architecture."""

    objective: Objective
    epochs: int = Field(ge=1)
    micro_batches: int = Field(4, ge=1)
    """M logical micro-batches of one step, the unit of randomness, BatchNorm and weighted means; the worker count divides it."""
    micro_batch_size: int = Field(ge=1)
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
    def _consistent(self) -> "Recipe":
        if self.mixup and self.micro_batch_size % 2:
            raise ValueError(f"micro_batch_size must be even with mixup, got {self.micro_batch_size}")
        drw = getattr(self.objective, "drw", None)
        if drw and drw.epoch >= self.epochs:
            raise ValueError(f"objective.drw.epoch must be below epochs ({self.epochs}), got {drw.epoch}")
        return self


class Train(Recipe):
    """One training stage: an architecture and its recipe."""

    model: Model
