"""What a student gives to a loss, the same in training and evaluation mode.

timm's distilled model returns a pair or an average depending on its mode; objectives ask for the tokens and the two
heads instead, through timm's public names, since losses know no architecture.
"""

from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from vitops.errors import UsageError


@dataclass(frozen=True)
class TwoHeads:
    """Tokens after the final norm (B, E) and logits (B, C) of the two heads of a distilled model."""

    cls: Tensor
    dist: Tensor
    cls_logits: Tensor
    dist_logits: Tensor

    @property
    def mean(self) -> Tensor:
        """Average of the two logits (B, C): the model's prediction."""
        return (self.cls_logits + self.dist_logits) / 2

    @property
    def cosine(self) -> Tensor:
        """Cosine of the two tokens per image (B,): 1 means that the two experts see the same."""
        return F.cosine_similarity(self.cls, self.dist, dim=1)


def is_distilled(model: nn.Module) -> bool:
    """Whether the model has a head on a distillation token."""
    return hasattr(model, "head_dist")


def require_distilled(model: nn.Module, *, objective: str) -> None:
    """Raises UsageError for a model without a head on a distillation token."""
    if not is_distilled(model):
        raise UsageError(
            f"objective {objective} needs a distilled model, e.g. model.name deit_tiny_distilled_patch16_224: "
            f"{type(model).__name__} has no distillation token"
        )


def two_heads(model: nn.Module, x: Tensor) -> TwoHeads:
    """One forward pass of a distilled model for images ``x`` (B, 3, H, W)."""
    features: Tensor = cast(Tensor, model.forward_features(x))  # type: ignore[operator]  # (B, 2 + patches, E)
    cls, dist = features[:, 0], features[:, 1]
    head, head_dist, drop = (cast(nn.Module, getattr(model, name)) for name in ("head", "head_dist", "head_drop"))
    return TwoHeads(cls, dist, cls_logits=head(drop(cls)), dist_logits=head_dist(drop(dist)))


def mean_logits(model: nn.Module, x: Tensor) -> Tensor:
    """The model's prediction (B, C): the average of both heads' logits where there are two."""
    if is_distilled(model):
        return two_heads(model, x).mean
    logits: Tensor = model(x)
    return logits
