"""Label-distribution-aware margins: rarer classes must win by more.

Source: Cao et al. (NeurIPS 2019), "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss".
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vitops.config.objectives import Ldam as Section
from vitops.errors import UsageError
from vitops.losses.cross_entropy import cross_entropy, tally
from vitops.losses.drw import DeferredWeights
from vitops.losses.objective import Contributions, Objective
from vitops.models.heads import classifier


def margins(counts: Sequence[int], *, max_margin: float) -> Tensor:
    """Margins (C,), float32: proportional to count^(-1/4), the rarest class's being ``max_margin``."""
    samples = torch.as_tensor(list(counts), dtype=torch.float64)
    inverse = samples.pow(-0.25)
    return (inverse * (max_margin / inverse.max())).float()


def ldam_loss(
    cosines: Tensor, target: Tensor, *, margin: Tensor, scale: float, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of ``scale`` * (``cosines`` (B, C), less the margin of the true class), a scalar.

    ``target`` (B,) classes, ``margin`` (C,), ``weights`` (C,) or None; a weighted mean is per micro-batch.
    """
    handicap = torch.zeros_like(cosines).scatter(1, target[:, None], margin.to(cosines)[target][:, None])  # (B, C)
    return cross_entropy(scale * (cosines - handicap), target, weights=weights)


class Ldam(Objective):
    """LDAM on a cosine head, re-weighted by class from the DRW epoch on (normalised per micro-batch).

    Margins need hard labels, so the stream never mixes. Raises UsageError for a model without a cosine head.
    """

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        super().__init__(config, model=model, teachers=teachers, counts=counts)
        if not getattr(classifier(model), "cosine", False):
            raise UsageError(
                f"objective ldam needs a cosine head, which {type(model).__name__} does not have: "
                "set head: cosine under the model, or take objective cross_entropy"
            )
        self._margins = margins(counts, max_margin=config.max_margin)
        self._deferred = DeferredWeights(config.drw, counts=counts)
        self.on_epoch(0)

    def mixes(self, epoch: int) -> bool:
        return False

    def on_epoch(self, epoch: int) -> None:
        self._weights = self._deferred.at(epoch)

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        cosines: Tensor = self.model(sample["input"])
        target = sample["target"]
        loss = ldam_loss(cosines, target, margin=self._margins, scale=self.config.scale, weights=self._weights)
        return loss, tally(cosines, sample, loss=loss)
