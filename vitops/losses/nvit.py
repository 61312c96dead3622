"""Guidance while a model is pruned and fine-tuned: the dense model's distribution and the student's own objective.

Source: NViT (CVPR 2023, arXiv 2110.04869), with the KL as a mean over the batch alone.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitops.config.objectives import Nvit as Section
from vitops.losses.deit_lt import DeitLt
from vitops.losses.objective import Contributions, Objective
from vitops.losses.teacher import frozen
from vitops.models.heads import predict, two_heads


def divergence(student: Tensor, dense: Tensor, *, temperature: float) -> Tensor:
    """KL(dense || student) of logits (B, C) at ``temperature``, mean over the batch; no temperature^2 factor."""
    target = F.log_softmax(dense / temperature, dim=1)
    return F.kl_div(F.log_softmax(student / temperature, dim=1), target, reduction="batchmean", log_target=True)


class Nvit(Objective):
    """KL of the mean-head logits to the unpruned model (role ``dense``), plus the distilled objective.

    Raises UsageError when a role is missing while its weight is above 0.
    """

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        super().__init__(config, model=model, teachers=teachers, counts=counts)
        self._distilled = DeitLt(config.distill, model=model, teachers=teachers, counts=counts)
        self._dense = frozen(teachers, "dense", objective="nvit") if config.kl_weight > 0 else None

    def mixes(self, epoch: int) -> bool:
        return self._distilled.mixes(epoch)

    def on_epoch(self, epoch: int) -> None:
        self._distilled.on_epoch(epoch)

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        student = two_heads(self.model, sample["input"])
        loss, contributions = self._distilled.loss_of(student, sample)
        if self._dense is None:
            return loss, contributions
        with torch.no_grad():
            dense = predict(self._dense, sample["input"])
        kl = divergence(student.mean, dense, temperature=self.config.temperature)
        loss = loss + self.config.kl_weight * kl
        size = len(dense)
        return loss, contributions | {"loss": loss.detach() * size, "kl": kl.detach() * size}
