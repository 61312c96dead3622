"""Deferred re-weighting: class-balanced weights by the effective number of samples, from an epoch on.

Source: Cui et al. (CVPR 2019, class-balanced weights) and Cao et al. (NeurIPS 2019, deferring them).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitops.config.objectives import Drw
from vitops.errors import UsageError


def class_weights(counts: Sequence[int], *, beta: float) -> Tensor:
    """Weights (C,) proportional to (1 - beta) / (1 - beta^count), float32, scaled so that they sum to C.

    ``beta`` in [0, 1): 0 gives all ones. Raises UsageError for a class without a sample.
    """
    if not 0 <= beta < 1:
        raise UsageError(f"drw.beta must be in [0, 1), got {beta}")
    if not counts or min(counts) < 1:
        raise UsageError(f"class-balanced weights need a training image of every class, got counts {list(counts)}")
    samples = torch.as_tensor(list(counts), dtype=torch.float64)
    weights = (1 - beta) / (1 - beta**samples)
    return (weights * (len(counts) / weights.sum())).float()


class DeferredWeights:
    """No weights before the DRW epoch, class-balanced ones from it on; a function of the epoch's number alone."""

    def __init__(self, config: Drw | None, *, counts: Sequence[int]) -> None:
        """``config`` None never re-weights."""
        self._epoch = None if config is None else config.epoch
        self._weights = None if config is None else class_weights(counts, beta=config.beta)

    def active(self, epoch: int) -> bool:
        """Whether ``epoch`` (counted from 0) has weights."""
        return self._epoch is not None and epoch >= self._epoch

    def at(self, epoch: int) -> Tensor | None:
        """The weights (C,) of ``epoch``, or None before the switch."""
        return self._weights if self.active(epoch) else None
