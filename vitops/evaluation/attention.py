"""How far attention looks: the mean distance in pixels between a patch and the patches it attends to.

Laws: prefix tokens (CLS, DIST, registers) count neither as queries nor as keys, and the rows that are left sum to 1
again; uniform attention has the mean distance of all pairs of patches, attention to oneself has 0.
Source: DeiT-LT (CVPR 2024), locality of attention heads; the text leaves the formula open. With it a uniform head over
14 x 14 patches of 16 pixels has 116.49 pixels, the paper's own figure for a plain ViT.
"""

import torch
from torch import Tensor

Pair = tuple[int, int]


def patch_distances(grid: Pair, patch: Pair) -> Tensor:
    """Distances (P, P) in pixels of patch centres, for ``grid`` rows and columns of patches of that many pixels."""
    rows, columns = (torch.arange(n, dtype=torch.float64) * size for n, size in zip(grid, patch, strict=True))
    centres = torch.cartesian_prod(rows, columns)  # (P, 2)
    return torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")


def attention_distance(attention: Tensor, distances: Tensor, *, prefix: int) -> Tensor:
    """Mean distance (H,) of each head, for attention (B, H, N, N) with ``prefix`` tokens before the P patches."""
    patches = attention[:, :, prefix:, prefix:].double()  # (B, H, P, P)
    share = patches.sum(dim=-1).clamp_min(torch.finfo(torch.float64).tiny)
    return ((patches * distances).sum(dim=-1) / share).mean(dim=(0, 2))  # (B, H, P) -> (H,)
