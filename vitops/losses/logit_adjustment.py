"""Logit adjustment, and balanced softmax as its case tau = 1: cross-entropy of logits shifted by the class prior.

Evaluation takes the logits as they are, so that rarer classes gain what training took from them.
Source: Menon et al. (ICLR 2021), "Long-tail learning via logit adjustment", equation 10; Ren et al. (NeurIPS 2020),
"Balanced Meta-Softmax for Long-Tailed Visual Recognition", equation 4 (tau = 1).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vitops.config.objectives import LogitAdjustment as Section
from vitops.errors import UsageError
from vitops.losses.cross_entropy import cross_entropy, label, tally
from vitops.losses.objective import Contributions, Objective
from vitops.models.heads import predict


def log_prior(counts: Sequence[int]) -> Tensor:
    """Logarithm (C,) of each class's share of the training images, float32. Raises UsageError for an empty class."""
    if min(counts) < 1:
        raise UsageError(f"logit adjustment needs a training image of every class, got counts {list(counts)}")
    samples = torch.tensor(counts, dtype=torch.float64)
    return (samples / samples.sum()).log().float()


class LogitAdjustment(Objective):
    """Cross-entropy of the prediction's logits plus tau times the log prior."""

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        super().__init__(config, model=model, teachers=teachers, counts=counts)
        self._shift = config.tau * log_prior(self.counts)

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        logits = predict(self.model, sample["input"])
        loss = cross_entropy(logits + self._shift.to(logits), label(sample))
        return loss, tally(logits, sample, loss=loss)
