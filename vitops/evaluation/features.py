"""How many directions features use.

Source: DeiT-LT (CVPR 2024), rank of the DIST token's features; whether they are centred is left open there, here the
mean feature is subtracted, for a constant is no direction in which images differ.
"""

import torch
from torch import Tensor

ENERGY = 0.99


def energy_rank(features: Tensor) -> int:
    """The fewest singular values of ``features`` (n, d) whose squares sum to 99 % of the total; 0 for zeros."""
    energies = torch.linalg.svdvals(features.double()).square()
    reached = energies.cumsum(0)
    return int((reached < ENERGY * reached[-1]).sum()) + 1 if reached[-1] > 0 else 0


def feature_rank(features: Tensor) -> int:
    """``energy_rank`` of ``features`` (n, d) about their mean; n must exceed d, or n and not the features bounds it."""
    features = features.double()
    return energy_rank(features - features.mean(dim=0))
