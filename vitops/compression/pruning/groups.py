"""Which axes of which tensors belong to which prunable structure of a vision transformer with split q, k and v.

Structures: ``emb`` is the residual width (one for the net); block i has ``b{i}.h`` heads, ``b{i}.qk`` and ``b{i}.v``
widths per head and ``b{i}.mlp`` hidden units. Unit d of ``qk`` (or ``v``) is removed in all heads at once, so that the
kept heads stay rectangular (head alignment, section 3.1 of the paper).

Laws: every weight that a unit touches names the unit's structure on one axis of its view; masks, shrinking and
saliency read this one table, so they cannot disagree about what a unit is.

Shape legend: E residual width, H heads, Q query/key width of a head, V value width of a head, M hidden width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Dims = dict[str, Any]
"""What ``vitops.models.pruned_vit`` builds a model from: ``emb``, and ``h``, ``qk``, ``v``, ``mlp`` per block, ..."""
Keep = dict[str, Tensor]
"""Structure -> boolean vector, true for the units that live."""

EMB = "emb"
BLOCK_STRUCTURES = ("h", "qk", "v", "mlp")


@dataclass(frozen=True)
class Axes:
    """How a tensor is viewed: one structure (or None) and one size (-1: the rest) per axis."""

    structures: tuple[str | None, ...]
    sizes: tuple[int, ...]

    def view(self, tensor: Tensor) -> Tensor:
        """The tensor with one axis per entry of ``structures``."""
        return tensor.reshape(self.sizes)

    def axis(self, structure: str) -> int:
        """The axis on which a unit of ``structure`` is an index."""
        return self.structures.index(structure)


def kind(structure: str) -> str:
    """``emb``, ``h``, ``qk``, ``v`` or ``mlp`` of a structure such as ``b3.qk``."""
    return structure.rpartition(".")[2]


def widths(dims: Dims) -> dict[str, int]:
    """Structure -> number of units, ``emb`` first, then block by block."""
    found = {EMB: int(dims["emb"])}
    for index in range(len(dims["h"])):
        found |= {f"b{index}.{name}": int(dims[name][index]) for name in BLOCK_STRUCTURES}
    return found


def layout(dims: Dims) -> dict[str, Axes]:
    """State-dict name -> axes, for every tensor that pruning touches."""
    size = widths(dims)

    def axes(*structures: str | None) -> Axes:
        return Axes(structures, tuple(-1 if name is None else size[name] for name in structures))

    table = _embedding(axes, distilled=bool(dims["distilled"]))
    if dims.get("reg_tokens"):
        table["reg_token"] = axes(None, EMB)
    for index in range(len(dims["h"])):
        table |= _block(axes, index)
    return table


def _embedding(axes: Any, *, distilled: bool) -> dict[str, Axes]:
    table = {
        "cls_token": axes(None, EMB),
        "pos_embed": axes(None, EMB),
        "patch_embed.proj.weight": axes(EMB, None),
        "patch_embed.proj.bias": axes(EMB),
        "norm.weight": axes(EMB),
        "norm.bias": axes(EMB),
        "head.weight": axes(None, EMB),
    }
    if distilled:
        table |= {"dist_token": axes(None, EMB), "head_dist.weight": axes(None, EMB)}
    return table


def _block(axes: Any, index: int) -> dict[str, Axes]:
    h, qk, v, mlp = (f"b{index}.{name}" for name in BLOCK_STRUCTURES)
    table = {
        "attn.proj.weight": axes(EMB, h, v),
        "attn.proj.bias": axes(EMB),
        "mlp.fc1.weight": axes(mlp, EMB),
        "mlp.fc1.bias": axes(mlp),
        "mlp.fc2.weight": axes(EMB, mlp),
        "mlp.fc2.bias": axes(EMB),
    }
    for name, width in (("q", qk), ("k", qk), ("v", v)):
        table |= {f"attn.{name}.weight": axes(h, width, EMB), f"attn.{name}.bias": axes(h, width)}
    for norm in ("norm1", "norm2"):
        table |= {f"{norm}.weight": axes(EMB), f"{norm}.bias": axes(EMB)}
    return {f"blocks.{index}.{name}": entry for name, entry in table.items()}


def keep_all(dims: Dims) -> Keep:
    """Masks under which nothing is pruned."""
    return {name: torch.ones(size, dtype=torch.bool) for name, size in widths(dims).items()}


def kept_dims(dims: Dims, keep: Mapping[str, Tensor]) -> Dims:
    """``dims`` with the widths that ``keep`` leaves."""
    left = {name: int(mask.sum()) for name, mask in keep.items()}
    blocks = {name: [left[f"b{i}.{name}"] for i in range(len(dims["h"]))] for name in BLOCK_STRUCTURES}
    return dims | {"emb": left[EMB]} | blocks


def tensor_masks(dims: Dims, keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State-dict name -> boolean mask in the tensor's view, broadcastable over axes without a structure."""
    return {name: _outer(axes, keep) for name, axes in layout(dims).items()}


def _outer(axes: Axes, keep: Mapping[str, Tensor]) -> Tensor:
    mask = torch.ones([1] * len(axes.structures), dtype=torch.bool)
    for position, structure in enumerate(axes.structures):
        if structure is not None:
            shape = [1] * len(axes.structures)
            shape[position] = -1
            mask = mask & keep[structure].reshape(shape)
    return mask
