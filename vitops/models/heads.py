"""Logits by head, the same path in training and evaluation.

timm's distilled model gives a pair or an average depending on its mode; accuracy per head and distillation both need
the two heads whatever the mode, and the average of logits (never of probabilities) as the prediction.
Source: DeiT (ICML 2021, distillation token) and DeiT-LT (CVPR 2024, two experts).
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from vitops.errors import UsageError


def is_distilled(model: nn.Module) -> bool:
    """Whether the model has a second head on a distillation token."""
    return hasattr(model, "head_dist") and hasattr(model, "forward_features")


def tokens(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """CLS and DIST features after the final norm, each (B, E), of a distilled model for images ``x`` (B, 3, H, W)."""
    if not is_distilled(model):
        raise UsageError(
            f"{type(model).__name__} has no distillation token: take a distilled model, "
            "e.g. deit_tiny_distilled_patch16_224"
        )
    features = cast(Tensor, model.forward_features(x))  # type: ignore[operator]  # (B, 2 + patches, E)
    return features[:, 0], features[:, 1]


def heads(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Logits (B, C) by head: ``cls``, ``dist`` and ``mean`` (their average) of a distilled model, else ``mean``."""
    if not is_distilled(model):
        return {"mean": model(x)}
    cls, dist = tokens(model, x)
    drop = cast(nn.Module, model.head_drop)
    logits = {"cls": cast(nn.Module, model.head)(drop(cls)), "dist": cast(nn.Module, model.head_dist)(drop(dist))}
    return {**logits, "mean": (logits["cls"] + logits["dist"]) / 2}


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """The prediction: logits (B, C) of the mean head."""
    return heads(model, x)["mean"]


class CosineHead(nn.Linear):
    """Unit features times unit class weights, no bias: outputs are cosines in [-1, 1] (B, C).

    Source: Cao et al. (NeurIPS 2019), whose margins assume unit features and unit class weights.
    """

    cosine = True
    """What margin losses look for on a model's ``head``."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes, bias=False)

    def reset_parameters(self) -> None:
        """Uniform directions: uniform entries in (-1, 1), each class row scaled to unit length."""
        nn.init.uniform_(self.weight, -1, 1)
        self.weight.data = F.normalize(self.weight.data, dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Cosines (B, C) of ``features`` (B, E) with every class direction."""
        return F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))
