"""Saliency of a unit: the squared gradient of a gate on everything that belongs to it.

A gate g = 1 multiplying the weights of a unit has the gradient sum(w * dL/dw) over them; its square approximates the
loss change of removing the unit (section 3.2 of the paper, after bounding the Hessian by finite differences).

Laws: the square is taken per optimizer step, after the sum; gradients are those of the whole step (the mean over its
micro-batches), at the weights they were computed for. LayerNorm, tokens and heads are removed with ``emb`` but are
not part of its sum, and ``proj`` and K are not part of V and QK: they give the same number.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitops.compression.pruning.groups import EMB, Axes, Dims, kind, layout, widths
from vitops.errors import VitopsError

_SUMMED: dict[str, tuple[str, ...]] = {
    "h": ("q.weight", "q.bias", "k.weight", "k.bias", "v.weight", "v.bias"),
    "qk": ("q.weight", "q.bias"),
    "v": ("v.weight", "v.bias"),
}
_RESIDUAL = (
    "attn.q.weight",
    "attn.k.weight",
    "attn.v.weight",
    "attn.proj.weight",
    "attn.proj.bias",
    "mlp.fc1.weight",
    "mlp.fc2.weight",
    "mlp.fc2.bias",
)


def summed(dims: Dims) -> dict[str, tuple[str, ...]]:
    """Structure -> names of the tensors whose ``w * dL/dw`` make up its gate gradient."""
    return {structure: tuple(_tensors(structure, depth=len(dims["h"]))) for structure in widths(dims)}


def _tensors(structure: str, *, depth: int) -> list[str]:
    if structure == EMB:
        blocks = [f"blocks.{index}.{name}" for index in range(depth) for name in _RESIDUAL]
        return ["patch_embed.proj.weight", "patch_embed.proj.bias", *blocks]
    block = f"blocks.{structure.partition('.')[0][1:]}"
    if kind(structure) == "mlp":
        return [f"{block}.mlp.fc1.weight", f"{block}.mlp.fc1.bias"]
    return [f"{block}.attn.{name}" for name in _SUMMED[kind(structure)]]


def unit_sums(contribution: Tensor, *, axes: Axes, structure: str) -> Tensor:
    """Sum of ``contribution`` (w * dL/dw) over every axis but the structure's, in float64: (units,)."""
    first = axes.view(contribution).double().movedim(axes.axis(structure), 0)
    return first.reshape(len(first), -1).sum(1)  # (units, rest) -> (units,)


def gate_gradients(weights: Mapping[str, Tensor], grads: Mapping[str, Tensor], *, dims: Dims) -> dict[str, Tensor]:
    """Structure -> gradient of each unit's gate, float64 (units,) on the CPU.

    ``weights`` and ``grads`` by state-dict name.
    """
    table = layout(dims)
    products = {name: weights[name].detach() * grads[name] for name in table}
    return {
        structure: torch.stack([unit_sums(products[name], axes=table[name], structure=structure) for name in names])
        .sum(0)
        .cpu()
        for structure, names in summed(dims).items()
    }


def saliency(
    weights: Mapping[str, Tensor], grads: Mapping[str, Tensor], *, dims: Dims, divisors: Mapping[str, float]
) -> dict[str, Tensor]:
    """Structure -> squared, divided gate gradient of each unit, float64 (units,).

    ``divisors`` by kind of structure. Raises VitopsError naming the structure when a sum is not finite.
    """
    squares = {}
    for structure, gradient in gate_gradients(weights, grads, dims=dims).items():
        if not bool(torch.isfinite(gradient).all()):
            raise VitopsError(
                f"the saliency of {structure} is not finite: training diverged while pruning; lower prune.lr"
            )
        squares[structure] = (gradient / divisors[kind(structure)]).square()
    return squares


class RunningSaliency:
    """Mean over the steps of an interval, then a moving average over intervals."""

    def __init__(self, *, momentum: float) -> None:
        self.momentum = momentum
        self.steps = 0
        self.sums: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """One step's saliency."""
        self.sums = {name: self.sums[name] + value if self.sums else value for name, value in values.items()}
        self.steps += 1

    def close_interval(self) -> dict[str, Tensor]:
        """Fold the interval's mean into the average and start a new interval; the average by structure."""
        for name, total in self.sums.items():
            mean = total / self.steps
            before = self.average.get(name)
            self.average[name] = mean if before is None else self.momentum * before + (1 - self.momentum) * mean
        self.sums, self.steps = {}, 0
        return self.average
