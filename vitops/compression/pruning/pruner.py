"""The objective of the pruning phase: trains like the one it wraps, and removes groups every ``interval`` steps.

Laws: saliency is read from the merged mean gradients before the optimizer moves the weights, so it is the same on
every rank; pruned entries, their gradients and their optimizer moments are zero after every step (explicit masks, not
a test for zeros); ``state_dict`` holds masks, sums, averages and the log, so a resumed run removes the same groups.

The wrapped objective is held at its last epoch: the student has finished its own schedule when pruning begins.
"""

import json
from typing import Any

import torch
from torch import Tensor

from vitops.compression.pruning.cost import macs
from vitops.compression.pruning.groups import Keep, keep_all, kept_dims, kind, layout, tensor_masks
from vitops.compression.pruning.saliency import RunningSaliency, saliency
from vitops.compression.pruning.selection import Round, Rules, check, select
from vitops.compression.pruning.shrink import apply_masks
from vitops.config.compression import Prune
from vitops.errors import VitopsError
from vitops.losses.objective import Objective
from vitops.models.pruned_vit import PrunedViT

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_INNER, _KEEP, _SUM, _AVERAGE = "inner.", "keep.", "sum.", "average."


def rules(config: Prune, *, full_cost: float) -> Rules:
    """The selection rules of a ``prune:`` section for a model of ``full_cost`` multiply-accumulates."""
    return Rules(
        structures=tuple(config.structures),
        group_sizes=config.group_sizes.model_dump(),
        floors=config.min_dims.model_dump(),
        groups_per_round=config.groups_per_round,
        eta_rel=config.eta_rel,
        target_cost=config.target * full_cost,
    )


class Pruner(Objective):
    """Prunes ``model`` (a PrunedViT of full widths, edited in place) while ``inner`` trains it.

    ``keep``: masks by structure; ``log``: one row per round; ``done`` once the cost is at most the target.
    Raises UsageError when the configuration does not fit the model or its target cannot be reached.
    """

    def __init__(self, config: Prune, inner: Objective, *, model: PrunedViT) -> None:
        super().__init__(config, model=model, teachers=inner.teachers, counts=inner.counts)
        self.inner, self.auxiliary = inner, inner.auxiliary
        self.dense = model.dims.model_dump(mode="json")
        self.rules = rules(config, full_cost=macs(self.dense))
        check(self.dense, rules=self.rules, cost=macs)
        self.keep: Keep = keep_all(self.dense)
        self.log: list[dict[str, Any]] = []
        self.running = RunningSaliency(momentum=config.momentum)
        self._table = layout(self.dense)
        self._masks = tensor_masks(self.dense, self.keep)
        self._divisors: dict[str, float] = config.divisors.model_dump()
        self.done = macs(self.dense) <= self.rules.target_cost

    def rounds_at_most(self) -> int:
        """Rounds after which nothing prunable can be left: every round removes at least one group."""
        prunable = [(name, len(mask)) for name, mask in self.keep.items() if self.rules.prunable(name)]
        return sum(-(-width // self.rules.group_sizes[kind(name)]) for name, width in prunable)

    def mixes(self, epoch: int) -> bool:
        """As in the last epoch of the wrapped objective."""
        return self.inner.mixes(self.config.finetune.epochs - 1)

    def on_epoch(self, epoch: int) -> None:
        """Hold the wrapped objective at its last epoch."""
        self.inner.on_epoch(self.config.finetune.epochs - 1)

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The wrapped objective's loss."""
        return self.inner.loss(sample, rng)

    def merge(self, contributions: list[dict[str, Tensor]]) -> None:
        """The wrapped objective's merge."""
        self.inner.merge(contributions)

    def after_backward(self, grads: dict[str, Tensor]) -> None:
        """Add this step's saliency, then drop the gradients of what is pruned."""
        self.inner.after_backward(grads)
        weights = dict(self.model.named_parameters())
        self.running.add(saliency(weights, grads, dims=self.dense, divisors=self._divisors))
        apply_masks(grads, self._masks, self._table)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Close the interval if it is full, then zero pruned weights and their moments."""
        self.inner.after_step(optimizer)
        if self.running.steps == self.config.interval:
            self._prune()
        parameters = dict(self.model.named_parameters())
        apply_masks(parameters, self._masks, self._table)
        for name, parameter in parameters.items():
            moments = {
                key: value for key, value in optimizer.state.get(parameter, {}).items() if _like(value, parameter)
            }
            for moment in moments.values():
                apply_masks({name: moment}, {name: self._masks[name]} if name in self._masks else {}, self._table)

    def _prune(self) -> None:
        average = self.running.close_interval()
        found = select(average, self.keep, dense=self.dense, rules=self.rules, cost=macs)
        if not found.removed:
            raise VitopsError(
                f"pruning stopped at {found.cost / macs(self.dense):.3f} of the cost: no group may be removed. "
                "Raise prune.target, or lower the floors of prune.min_dims"
            )
        living = torch.cat([values[self.keep[name]] for name, values in average.items()])
        self.keep = found.keep
        self._masks = tensor_masks(self.dense, self.keep)
        self.done = found.cost <= self.rules.target_cost
        self.log.append(_row(found, full_cost=macs(self.dense), living=living))

    def state_dict(self) -> dict[str, Tensor]:
        """Masks, running saliency, log, and the wrapped objective's state."""
        groups = {_KEEP: self.keep, _SUM: self.running.sums, _AVERAGE: self.running.average}
        state = {prefix + name: value.clone() for prefix, part in groups.items() for name, value in part.items()}
        state |= {_INNER + name: value for name, value in self.inner.state_dict().items()}
        text = json.dumps(self.log, sort_keys=True).encode()
        return state | {
            "steps": torch.tensor(self.running.steps),
            "log": torch.frombuffer(bytearray(text), dtype=torch.uint8).clone(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` gave."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        self.inner.load_state_dict(part(_INNER))
        self.keep = {name: value.bool().clone() for name, value in part(_KEEP).items()}
        self.running.sums = {name: value.clone() for name, value in part(_SUM).items()}
        self.running.average = {name: value.clone() for name, value in part(_AVERAGE).items()}
        self.running.steps = int(state["steps"])
        self.log = json.loads(bytes(state["log"].tolist()))
        self._masks = tensor_masks(self.dense, self.keep)
        self.done = macs(kept_dims(self.dense, self.keep)) <= self.rules.target_cost

    def summary(self) -> dict[str, Any]:
        """The wrapped objective's numbers, the share of the cost that is left and the rounds so far."""
        share = macs(kept_dims(self.dense, self.keep)) / macs(self.dense)
        return self.inner.summary() | {"cost": share, "rounds": len(self.log)}


def _like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _row(found: Round, *, full_cost: float, living: Tensor) -> dict[str, Any]:
    quantiles = torch.quantile(living, torch.tensor(_QUANTILES, dtype=living.dtype)).tolist()
    names = ("emb", "h", "qk", "v", "mlp")
    return {
        "cost": found.cost / full_cost,
        "dims": {name: found.dims[name] for name in names},
        "threshold": found.threshold,
        "eta": found.eta,
        "saliency_quantiles": dict(zip(map(str, _QUANTILES), quantiles, strict=True)),
        "removed": [group.row() for group in found.removed],
    }
