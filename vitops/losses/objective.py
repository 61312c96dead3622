"""The seam between the one training loop and every method.

Laws: ``loss`` is a pure function of the weights, the sample, the epoch and ``rng``; whatever a step changes goes
through ``merge``, which sees the contributions of all micro-batches in their order, the same on every rank, so that
state does not depend on the number of workers. Whatever an epoch changes is set in ``on_epoch`` from its number alone,
so that a resume at any epoch is right. What the optimizer moves beside the model is in ``auxiliary``: it is summed,
clipped, perturbed and checkpointed with the model's parameters, and is in no artifact. ``state_dict`` holds the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitops.config.base import Section
from vitops.errors import VitopsError

Contributions = dict[str, Tensor]
_TALLY = "tally."


class Objective(ABC):
    """What a training minimises, and what it notes per epoch.

    A contribution is a small tensor that adds up: floats are summed in double precision, integers exactly. The one
    called ``samples`` counts images; ``summary`` divides the float scalars by it.
    """

    done: bool = False
    """True ends the loop after this step."""
    auxiliary: nn.ModuleDict
    """What is trained beside the model and is no part of it (a head, a projection); empty where there is none."""

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        """``teachers``: frozen modules by role; ``counts``: training images of each class, in label order."""
        self.config: Any = config
        self.model = model
        self.teachers = dict(teachers)
        self.counts = tuple(counts)
        self.auxiliary = nn.ModuleDict()
        self._tally: dict[str, Tensor] = {}

    @abstractmethod
    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        """Mean loss (a scalar, all terms added up) of one micro-batch, and its contributions; no backward() in here.

        In here and in the model's forward nothing may change but buffers; what ``state_dict`` gives changes in
        ``merge`` and after the step. For several workers share a step's micro-batches, and each knows its own alone.

        ``sample`` has ``input`` (B, 3, H, W), ``target`` (B,) and, when mixed, ``mixed`` (B, C) soft targets; and where
        teachers remember their answers, ``position``: (epoch, step, micro-batch, mixed or not).
        """

    def mixes(self, epoch: int) -> bool:
        """Whether the stream may mix samples in this epoch."""
        return True

    def on_epoch(self, epoch: int) -> None:  # noqa: B027
        """Called before an epoch's first step, or before the next one after a resume."""

    def on_task(self, task: int) -> None:  # noqa: B027
        """Called before a continual task begins."""

    def merge(self, contributions: list[Contributions]) -> None:
        """Take in one step: the contributions of all its micro-batches, in order."""
        for contribution in contributions:
            for name, value in contribution.items():
                wide = value.detach().cpu().to(torch.float64 if value.is_floating_point() else torch.int64)
                self._tally[name] = self._tally[name] + wide if name in self._tally else wide

    def after_backward(self, grads: dict[str, Tensor]) -> None:  # noqa: B027
        """May edit the merged mean gradients, by parameter name, in place; once per step, before clipping.

        Names of ``auxiliary``'s parameters begin with ``auxiliary.``.
        """

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: B027
        """Called once per step, after the optimizer."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold: here the running epoch's sums."""
        return {_TALLY + name: value.clone() for name, value in self._tally.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` gave. Raises VitopsError on a name this objective does not know."""
        unknown = sorted(name for name in state if not name.startswith(_TALLY))
        if unknown:
            raise VitopsError(
                f"the checkpoint holds objective state {unknown} that {type(self).__name__} does not know: "
                "it was written by another objective"
            )
        self._tally = {name.removeprefix(_TALLY): value.clone() for name, value in state.items()}

    def summary(self) -> dict[str, Any]:
        """The epoch's numbers for history.json: means per sample, integer counts as they are; then start afresh."""
        sums, self._tally = self._tally, {}
        samples = int(sums.pop("samples", torch.tensor(1)))
        return {name: _plain(value, samples=samples) for name, value in sorted(sums.items())}


def _plain(value: Tensor, *, samples: int) -> Any:
    return (value / samples).tolist() if value.is_floating_point() else value.tolist()
