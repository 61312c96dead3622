"""From masks to a really smaller dense model.

Laws: while ``emb`` is untouched, or with the ``exact`` norm, the shrunk model computes what the masked one does; the
attention scale is the stored one of the dense model, never recomputed from a pruned width.

A masked LayerNorm of width D with d living channels divides by D; a norm of width d does not. ``plain`` ignores that,
``gain`` multiplies the norm's weights by sqrt(D / d) (exact for tokens of mean 0), ``exact`` keeps dividing by D.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitops.compression.pruning.groups import EMB, Axes, Dims, Keep, kept_dims, layout
from vitops.models.pruned_vit import PrunedViT, build


def apply_masks(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor], table: Mapping[str, Axes]) -> None:
    """Zero the pruned entries of each tensor in place; names without a mask are left alone."""
    with torch.no_grad():
        for name, mask in masks.items():
            if name in tensors:
                tensor = tensors[name]
                view = table[name].view(tensor.data)
                tensor.data.copy_((view * mask.to(view.device)).reshape(tensor.shape))


def shrink(model: PrunedViT, keep: Keep, *, ln: str) -> PrunedViT:
    """A smaller copy of ``model`` with the units that ``keep`` leaves. ``ln``: ``plain``, ``gain`` or ``exact``."""
    dims = model.dims.model_dump(mode="json")
    small_dims = kept_dims(dims, keep) | {"ln": _norm_dims(dims, ln=ln)}
    with torch.random.fork_rng(devices=[]):
        small = build(small_dims)
    table, wanted = layout(dims), small.state_dict()
    state = {
        name: _take(tensor, table[name], keep).reshape(wanted[name].shape) if name in table else tensor
        for name, tensor in model.state_dict().items()
    }
    if small.dims.ln.mode == "gain":
        _raise_gain(state, factor=math.sqrt(len(keep[EMB]) / int(keep[EMB].sum())))
    small.load_state_dict(state)
    return small.train(model.training)


def _norm_dims(dims: Dims, *, ln: str) -> dict[str, Any]:
    """A norm that already divides by an older width keeps doing so; otherwise the width so far is the dense one."""
    return dims["ln"] if dims["ln"]["mode"] == "exact" else {"mode": ln, "dense_emb": dims["emb"]}


def _take(tensor: Tensor, axes: Axes, keep: Mapping[str, Tensor]) -> Tensor:
    view = axes.view(tensor)
    for position, structure in enumerate(axes.structures):
        if structure is not None:
            view = view.index_select(position, keep[structure].nonzero().flatten().to(view.device))
    return view


def _raise_gain(state: dict[str, Tensor], *, factor: float) -> None:
    for name in state:
        if name.endswith("norm.weight") or name.endswith(("norm1.weight", "norm2.weight")):
            state[name] = state[name] * factor
