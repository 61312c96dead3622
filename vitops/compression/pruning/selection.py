"""Which groups of units go next: one ranking over all structures of all blocks.

Units of a structure are sorted by score (saliency minus ``eta`` times the cost that one unit saves) and cut into
groups; a group's score is the sum over its units (section 3.3 of the paper). The lowest groups of the whole net go,
at most ``groups_per_round`` of them, until the target is reached.

Laws: masks only ever lose units; a structure never falls below its floor, so at least one unit is always left; the
cost after a step is that of the widths after it; equal scores are broken by structure order, then by unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitops.compression.pruning.cost import Cost, savings, with_fewer
from vitops.compression.pruning.groups import Dims, Keep, kept_dims, kind, widths
from vitops.errors import UsageError


@dataclass(frozen=True)
class Rules:
    """How units are grouped and how far a structure may shrink; the mappings are by kind of structure."""

    structures: tuple[str, ...]
    group_sizes: Mapping[str, int]
    floors: Mapping[str, int]
    groups_per_round: int
    eta_rel: float
    target_cost: float

    def prunable(self, structure: str) -> bool:
        """Whether the configuration lets this structure shrink."""
        return kind(structure) in self.structures

    def removable(self, structure: str, *, width: int, units: int) -> bool:
        """Whether ``units`` may go from a structure that has ``width`` left."""
        return self.prunable(structure) and width - units >= self.floors[kind(structure)]


@dataclass(frozen=True)
class Group:
    """Units that are removed together."""

    structure: str
    units: tuple[int, ...]
    saliency: float
    latency: float
    """What the units save, in units of saliency (``eta`` times the cost)."""

    @property
    def score(self) -> float:
        """Low goes first."""
        return self.saliency - self.latency

    def row(self) -> dict[str, Any]:
        """JSON for the log."""
        return {
            "structure": self.structure,
            "units": list(self.units),
            "saliency": self.saliency,
            "latency": self.latency,
        }


@dataclass(frozen=True)
class Round:
    """What one selection did."""

    keep: Keep
    dims: Dims
    cost: float
    removed: tuple[Group, ...]
    threshold: float | None
    """Score of the last group that went."""
    eta: float


def check(dims: Dims, *, rules: Rules, cost: Cost) -> None:
    """Raise UsageError when a knob does not fit the model or the target lies below what the floors allow."""
    for structure, width in widths(dims).items():
        name = kind(structure)
        if rules.prunable(structure) and rules.floors[name] > width:
            raise UsageError(f"prune.min_dims.{name} is {rules.floors[name]}, but {structure} has {width} units")
        if rules.prunable(structure) and rules.group_sizes[name] > width:
            raise UsageError(
                f"prune.group_sizes.{name} is {rules.group_sizes[name]}, but {structure} has {width} units"
            )
    least = cost(smallest(dims, rules=rules))
    if least > rules.target_cost:
        full = cost(dims)
        raise UsageError(
            f"prune.target {rules.target_cost / full:.3f} cannot be reached: with every structure at its floor "
            f"(prune.min_dims) {least / full:.3f} of the cost is left; raise the target or lower the floors"
        )


def smallest(dims: Dims, *, rules: Rules) -> Dims:
    """The widths that are left when nothing more can go."""
    for structure, width in widths(dims).items():
        size, left = rules.group_sizes[kind(structure)], width
        while rules.removable(structure, width=left, units=size):
            left -= size
        dims = with_fewer(dims, structure=structure, units=width - left)
    return dims


def chunks(scores: Tensor, keep: Tensor, *, size: int) -> list[tuple[int, ...]]:
    """Living units by ascending score (ties: by index), cut into chunks of ``size``; the last may be shorter."""
    order = [unit for unit in torch.argsort(scores, stable=True).tolist() if bool(keep[unit])]
    return [tuple(order[start : start + size]) for start in range(0, len(order), size)]


def median_saliency(saliency: Mapping[str, Tensor], keep: Mapping[str, Tensor]) -> float:
    """Median over all living units of the net."""
    return float(torch.cat([values[keep[name]] for name, values in saliency.items()]).median())


def groups(
    saliency: Mapping[str, Tensor], keep: Mapping[str, Tensor], *, rules: Rules, unit_cost: Mapping[str, float]
) -> list[Group]:
    """All groups of the prunable structures, lowest score first. ``unit_cost``: eta times what one unit saves.

    The score that ranks a group is at least that of the groups before it in its structure: a short last chunk holds
    the most important units and must not overtake.
    """
    ranked: list[tuple[float, int, int, Group]] = []
    for place, (structure, values) in enumerate(saliency.items()):
        if not rules.prunable(structure):
            continue
        best = float("-inf")
        for number, units in enumerate(chunks(values, keep[structure], size=rules.group_sizes[kind(structure)])):
            total = float(values[list(units)].sum())
            group = Group(structure, units, saliency=total, latency=len(units) * unit_cost[structure])
            best = max(best, group.score)
            ranked.append((best, place, number, group))
    return [group for *_, group in sorted(ranked, key=lambda entry: entry[:3])]


def select(saliency: Mapping[str, Tensor], keep: Keep, *, dense: Dims, rules: Rules, cost: Cost) -> Round:
    """One round: ``saliency`` by structure (float64, units), ``keep`` the masks before it, ``dense`` the full widths.

    Source: sections 3.3 and 3.4 of the paper, with ``eta`` given relative to the median saliency and the full cost.
    """
    saliency = {structure: saliency[structure] for structure in widths(dense)}  # whatever order they came in
    dims = kept_dims(dense, keep)
    eta = rules.eta_rel * median_saliency(saliency, keep) / cost(dense)
    unit_cost = {structure: eta * saved for structure, saved in savings(cost, dims).items()}
    after = {structure: mask.clone() for structure, mask in keep.items()}
    removed: list[Group] = []
    at_floor: set[str] = set()
    for group in groups(saliency, keep, rules=rules, unit_cost=unit_cost):
        name, count = group.structure, len(group.units)
        if len(removed) == rules.groups_per_round or cost(dims) <= rules.target_cost:
            break
        if name in at_floor or not rules.removable(name, width=int(after[name].sum()), units=count):
            at_floor.add(name)  # later groups of this structure are more important, even if they are smaller
            continue
        after[name][list(group.units)] = False
        dims = with_fewer(dims, structure=name, units=count)
        removed.append(group)
    threshold = removed[-1].score if removed else None
    return Round(after, dims, cost=cost(dims), removed=tuple(removed), threshold=threshold, eta=eta)
