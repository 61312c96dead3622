"""Pruning, export and quantization."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from vitops.config.base import KeyProblem, Section
from vitops.config.training import Recipe

Structure = Literal["emb", "h", "qk", "v", "mlp"]


class Widths(Section):
    """One number per prunable structure."""

    emb: int = Field(ge=1)
    h: int = Field(ge=1)
    qk: int = Field(ge=1)
    v: int = Field(ge=1)
    mlp: int = Field(ge=1)


class Divisors(Section):
    """What each structure's gate gradient is divided by before squaring (official code's values)."""

    emb: float = Field(12.0, gt=0)
    h: float = Field(12.0, gt=0)
    qk: float = Field(2.0, gt=0)
    v: float = Field(2.0, gt=0)
    mlp: float = Field(1.0, gt=0)


class Dropout(Section):
    """What a model drops at random while it is pruned and fine-tuned, whatever it dropped before: timm's rates.

    The official code drops nothing, for it prunes in evaluation mode.
    """

    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth of the last block, rising linearly from 0 at the first."""
    attn_drop: float = Field(0.0, ge=0, lt=1)
    """Attention weights."""
    proj_drop: float = Field(0.0, ge=0, lt=1)
    """Outputs of attention and of both layers of an MLP."""
    pos_drop: float = Field(0.0, ge=0, lt=1)
    """Tokens after the position embedding."""
    head_drop: float = Field(0.0, ge=0, lt=1)
    """Features that a head reads (timm's ``drop_rate``)."""


class Prune(Section):
    """Global structural pruning by Hessian-aware saliency (NViT), then fine-tuning with the same teacher."""

    implementation: ClassVar[str] = "vitops.compression.pruning.stage:prune"
    kind: Literal["nvit"] = "nvit"
    target: float = Field(0.5, gt=0, le=1)
    """Share of the dense model's cost (MACs) to stop at."""
    structures: tuple[Structure, ...] = ("h", "qk", "v", "mlp")
    """What may be pruned; ``emb`` (the residual width) only on request."""
    min_dims: Widths = Widths(emb=64, h=1, qk=8, v=8, mlp=16)
    """Floor of each structure."""
    group_sizes: Widths = Widths(emb=16, h=1, qk=8, v=8, mlp=16)
    """Units removed together."""
    groups_per_round: int = Field(2, ge=1)
    """Groups removed after each interval."""
    interval: int = Field(4, ge=1)
    """Optimizer steps of saliency accumulation between two removals."""
    eta_rel: float = Field(1.0, ge=0)
    """Weight of the latency term in units of (median saliency / full cost)."""
    momentum: float = Field(0.9, ge=0, lt=1)
    divisors: Divisors = Divisors()
    ln_conversion: Literal["gain", "plain", "exact"] = "gain"
    """LayerNorm after the residual width shrank."""
    lr: float = Field(1e-4, gt=0)
    """Constant learning rate while pruning."""
    dropout: Dropout = Dropout()
    finetune: Recipe

    @model_validator(mode="after")
    def _consistent(self) -> "Prune":
        if not self.structures or len(set(self.structures)) < len(self.structures):
            raise KeyProblem(
                "structures", "must name each of emb, h, qk, v, mlp at most once, and at least one of them"
            )
        return self


class Export(Section):
    """fp32 ONNX with a numerical parity gate against torch."""

    opset: int = Field(20, ge=18)
    tolerance: float = Field(1e-4, gt=0)
    """Largest difference to torch on validation images, relative to the largest logit."""
    images: int = Field(64, ge=2)
    """Validation images of the parity gate."""


class Quantize(Section):
    """Static int8 quantization to an ONNX QDQ model with integer kernels."""

    implementation: ClassVar[str] = "vitops.compression.quantization.static:quantize"
    kind: Literal["static"] = "static"
    images: int = Field(256, ge=8)
    """Calibration images from the validation set."""
    calibration: Literal["minmax", "entropy", "percentile"] = "minmax"
    attention_float: bool = True
    """Leave the products q@k and attn@v in float (measured faster and closer)."""
    max_drop: float = Field(1.0, ge=0, le=100)
    """Largest loss of validation accuracy against fp32, in points, before the stage fails."""
