"""Sums in a fixed order: a binary tree over the micro-batches that does not depend on who computes which.

Laws: the tree halves [0, M) recursively; for a power of two W that divides M, every rank's share is a whole subtree, so
that adding the ranks' sums pairwise (butterfly) finishes the same tree. Float addition commutes but does not associate:
one tree, one result. The tree is that of every single element, so the pieces of a vector may arrive in any order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def share(micro_batches: int, *, rank: int, world: int) -> range:
    """The micro-batches of one rank. Raises ValueError unless ``world`` is a power of two that divides M."""
    if world & (world - 1) or micro_batches % world:
        raise ValueError(
            f"{world} workers cannot share {micro_batches} micro-batches: need a power of two dividing them"
        )
    size = micro_batches // world
    return range(rank * size, (rank + 1) * size)


class TreeSum:
    """The float32 sum of one rank's leaves, which come one after the other, each in pieces.

    It holds O(log leaves) vectors: level 0 is where the total stands in the end, the others are sums that wait for
    their right-hand side. A leaf that is a right-hand side is added where it is to go and stored nowhere.
    """

    def __init__(self, sizes: Sequence[int], *, leaves: int, device: torch.device) -> None:
        """``sizes``: elements of each piece; the vector is the pieces in their order."""
        self._merges = _merges(leaves)
        self._starts = [leaf - sum(self._merges[:leaf]) for leaf in range(leaves)]
        free = zip(self._starts, self._merges, strict=True)
        levels = [torch.zeros(sum(sizes), device=device) for _ in range(1 + max(s for s, merges in free if not merges))]
        self._pieces: list[Sequence[Tensor]] = [torch.split(level, list(sizes)) for level in levels]
        self.total = levels[0]
        """The sum, as soon as the last leaf has come."""

    def put(self, leaf: int, piece: int, value: Tensor) -> None:
        """Take in one piece of a leaf; all pieces of the leaves before it have come."""
        level, merges = self._starts[leaf], self._merges[leaf]
        if not merges:
            self._pieces[level][piece].copy_(value)
        for lower in range(level - 1, level - 1 - merges, -1):
            value = self._pieces[lower][piece].add_(value)

    def parts(self) -> Sequence[Tensor]:
        """The total's pieces, as views."""
        return self._pieces[0]


def _merges(leaves: int) -> list[int]:
    """How many sums of the tree each leaf completes."""
    if leaves == 1:
        return [0]
    left, right = _merges(leaves // 2), _merges(leaves - leaves // 2)
    return [*left, *right[:-1], right[-1] + 1]
