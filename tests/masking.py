"""Masking a whole model: what shrinking is compared with."""

from vitops.compression.pruning.groups import layout, tensor_masks
from vitops.compression.pruning.shrink import apply_masks


def mask_model(model, keep):
    """Zero everything that belongs to pruned units, in place."""
    dims = model.dims.model_dump(mode="json")
    apply_masks(dict(model.named_parameters()), tensor_masks(dims, keep), layout(dims))
