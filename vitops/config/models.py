"""Which architecture a training stage builds. A model is named by the timm registry or by a kind of our own."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from vitops.config.base import Section, later_field

Scalar = bool | int | float | str


class TimmModel(Section):
    """Any architecture of timm, from scratch (no download)."""

    implementation: ClassVar[str] = "vitops.models.timm_model:build"
    kind: Literal["timm"] = "timm"
    name: str
    """A name of timm's registry, e.g. ``deit_tiny_distilled_patch16_224``."""
    args: dict[str, Scalar] = Field(default_factory=dict)
    """Keyword arguments of the factory: ``img_size``, ``patch_size``, ``embed_dim``, ``depth``, ``num_heads``, ..."""
    head: Literal["linear", "cosine"] = later_field("linear")
    """The classifier: ``cosine`` (unit features times unit class weights) is what LDAM needs."""
    stem: Literal["published", "small"] = later_field("published")
    """``small``: of a ResNet for 32 px images, a 3x3 convolution that keeps the size, and no pooling."""


class CifarResNet(Section):
    """The ResNet of He et al. (2016), section 4.2: basic blocks, option-A shortcuts, stages of 16/32/64 channels."""

    implementation: ClassVar[str] = "vitops.models.cifar_resnet:build"
    kind: Literal["cifar_resnet"] = "cifar_resnet"
    depth: int = Field(32, ge=8)
    """6n + 2: 8, 14, 20, 32, 44, 56, ..."""
    head: Literal["linear", "cosine"] = "cosine"
    """``cosine``: unit features times unit class weights, the head that LDAM needs."""

    @field_validator("depth")
    @classmethod
    def _whole_stages(cls, depth: int) -> int:
        if (depth - 2) % 6:
            below = depth - (depth - 2) % 6
            raise ValueError(f"must be 6n + 2: {below} or {below + 6}, got {depth}")
        return depth


Model = Annotated[TimmModel | CifarResNet, Field(discriminator="kind")]
