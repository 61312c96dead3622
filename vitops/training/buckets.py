"""Which part of a step's vector can be summed over the ranks while the backward pass still computes the rest.

Laws: buckets are consecutive slices, from the vector's end (backward reaches the last layers first); a bucket leaves
when all its pieces have come and all buckets before it have left, so that every rank sends them in the same order.
"""

from collections.abc import Sequence


class Buckets:
    """The pieces of a vector, in buckets; each pass sees every piece once."""

    def __init__(self, sizes: Sequence[int], *, full: int) -> None:
        """``sizes``: elements of each piece, in the vector's order; ``full``: elements that fill a bucket."""
        pieces = _gathered(sizes, full)
        self._slices = [slice(sum(sizes[: own.start]), sum(sizes[: own.stop])) for own in pieces]
        self._counts = [len(own) for own in pieces]
        self._bucket = {piece: number for number, own in enumerate(pieces) for piece in own}
        self._begin()

    def arrive(self, piece: int) -> list[slice]:
        """The elements, bucket by bucket, that can leave because this piece has come."""
        self._missing[self._bucket[piece]] -= 1
        first = self._left
        while self._left < len(self._missing) and not self._missing[self._left]:
            self._left += 1
        leaving = self._slices[first : self._left]
        if self._left == len(self._missing):
            self._begin()
        return leaving

    def _begin(self) -> None:
        self._missing, self._left = list(self._counts), 0


def _gathered(sizes: Sequence[int], full: int) -> list[range]:
    found, last = [], len(sizes)
    for piece in reversed(range(len(sizes))):
        if not piece or sum(sizes[piece:last]) >= full:
            found.append(range(piece, last))
            last = piece
    return found
