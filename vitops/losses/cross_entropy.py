"""Cross-entropy on hard or mixed labels, optionally re-weighted by class from an epoch on."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitops.config.objectives import CrossEntropy as Section
from vitops.losses.drw import DeferredWeights
from vitops.losses.objective import Contributions, Objective
from vitops.models.heads import predict


def cross_entropy(logits: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of ``logits`` (B, C), a scalar; ``weights`` (C,) makes it the weighted mean.

    ``target`` is (B,) integer classes or (B, C) soft labels, told apart by dtype. The weighted mean is normalised by
    the weights present in this call, that is per micro-batch.
    """
    if weights is not None:
        weights = weights.to(logits)
    if not target.is_floating_point():
        return F.cross_entropy(logits, target, weight=weights)
    if weights is None:
        return F.cross_entropy(logits, target)
    weighted = target * weights  # (B, C)
    return -(weighted * F.log_softmax(logits, dim=1)).sum() / weighted.sum()


def label(sample: dict[str, Tensor]) -> Tensor:
    """The label of a micro-batch: soft (B, C) where the stream mixed it, else hard (B,)."""
    return sample.get("mixed", sample["target"])


def tally(logits: Tensor, sample: dict[str, Tensor], *, loss: Tensor) -> Contributions:
    """Contributions of a classifier: loss and accuracy (against the unmixed label), summed over the micro-batch."""
    size = len(logits)
    correct = logits.detach().argmax(dim=1) == sample["target"]
    return {
        "loss": loss.detach() * size,
        "accuracy": correct.sum().to(torch.float64),
        "samples": torch.tensor(size),
    }


def heavier(target: Tensor) -> Tensor:
    """The class (B,) of a label: of a soft one (B, C) that with the largest weight."""
    return target.argmax(dim=1) if target.is_floating_point() else target


def summed(parts: dict[str, Tensor], *, logits: Tensor, sample: dict[str, Tensor]) -> tuple[Tensor, Contributions]:
    """The sum of a loss's named parts (scalars), and the contributions: ``tally`` of the sum, and each part."""
    loss = torch.stack(list(parts.values())).sum()
    noted = {name: part.detach() * len(logits) for name, part in parts.items()}
    return loss, tally(logits, sample, loss=loss) | noted


class CrossEntropy(Objective):
    """Cross-entropy of the prediction; of a distilled model that is the average of both heads' logits.

    From the DRW epoch on the mean is weighted by class, normalised per micro-batch.
    """

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        super().__init__(config, model=model, teachers=teachers, counts=counts)
        self._deferred = DeferredWeights(config.drw, counts=counts)
        self.on_epoch(0)

    def on_epoch(self, epoch: int) -> None:
        self._weights = self._deferred.at(epoch)

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        logits = predict(self.model, sample["input"])
        loss = cross_entropy(logits, label(sample), weights=self._weights)
        return loss, tally(logits, sample, loss=loss)
