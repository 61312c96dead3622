"""Tokens and logits by head, the same path in training and evaluation.

timm's distilled model gives a pair or an average depending on its mode; accuracy per head and distillation both need
the two heads whatever the mode, and the average of logits (never of probabilities) as the prediction.
Source: DeiT (ICML 2021, distillation token) and DeiT-LT (CVPR 2024, two experts).
"""

from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


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
    """Whether the model has a second head on a distillation token."""
    return hasattr(model, "head_dist") and hasattr(model, "forward_features")


def two_heads(model: nn.Module, x: Tensor) -> TwoHeads:
    """One forward pass of a distilled model for images ``x`` (B, 3, H, W)."""
    features = cast(Tensor, model.forward_features(x))  # type: ignore[operator]  # (B, 2 + patches, E)
    cls, dist = features[:, 0], features[:, 1]
    head, head_dist, drop = (cast(nn.Module, getattr(model, name)) for name in ("head", "head_dist", "head_drop"))
    return TwoHeads(cls, dist, cls_logits=head(drop(cls)), dist_logits=head_dist(drop(dist)))


def heads(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Logits (B, C) by head: ``cls``, ``dist`` and ``mean`` (their average) of a distilled model, else ``mean``."""
    if not is_distilled(model):
        return {"mean": model(x)}
    found = two_heads(model, x)
    return {"cls": found.cls_logits, "dist": found.dist_logits, "mean": found.mean}


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """The prediction: logits (B, C) of the mean head."""
    return heads(model, x)["mean"]


def pooled(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the one head of a model reads, (B, E), and its logits (B, C)."""
    features = cast(Tensor, model.forward_features(x))  # type: ignore[operator]
    if hasattr(model, "forward_head"):
        features = cast(Tensor, model.forward_head(features, pre_logits=True))  # type: ignore[operator]
    return features, classifier(model)(features)


def classifier(model: nn.Module) -> nn.Module:
    """The layer that turns features into logits: timm's ``get_classifier``, or ``head``."""
    head = model.get_classifier() if hasattr(model, "get_classifier") else model.head  # type: ignore[operator]
    return cast(nn.Module, head)


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
