"""Sums in a fixed order: a binary tree over the micro-batches that does not depend on who computes which.

Laws: the tree halves [0, M) recursively; for a power of two W that divides M, every rank's share is a whole subtree, so
that adding the ranks' sums pairwise (butterfly) finishes the same tree. Float addition commutes but does not associate:
one tree, one result.
"""

from collections.abc import Callable

from torch import Tensor


def share(micro_batches: int, *, rank: int, world: int) -> range:
    """The micro-batches of one rank. Raises ValueError unless ``world`` is a power of two that divides M."""
    if world & (world - 1) or micro_batches % world:
        raise ValueError(
            f"{world} workers cannot share {micro_batches} micro-batches: need a power of two dividing them"
        )
    size = micro_batches // world
    return range(rank * size, (rank + 1) * size)


def tree_sum(leaf: Callable[[int], Tensor], low: int, high: int) -> Tensor:
    """Sum ``leaf(low)`` ... ``leaf(high - 1)``, called in this order; holds O(log(high - low)) tensors at a time."""
    if high - low == 1:
        return leaf(low)
    middle = (low + high) // 2
    left = tree_sum(leaf, low, middle)
    return left.add_(tree_sum(leaf, middle, high))
