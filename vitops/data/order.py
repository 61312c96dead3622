"""The order of training samples: a keyed permutation that can be asked in both directions.

Laws: for one (seed, epoch, n) ``position_to_sample`` is a bijection of 0..n-1 and ``sample_to_position`` its inverse;
each answer costs O(1) and depends on nothing else, so a position is resumed, and a sample's positions are found,
without walking the epoch. An alternating Feistel network permutes the numbers of the smallest number of bits that holds
n (less than 2n of them); a value at or above n is walked on until it falls below (cycle walking, Black and Rogaway
2002).
"""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from vitops.data.keyed import derive

Indices = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]
_Rounds = Callable[[_Words], _Words]
_ROUNDS = 8


def position_to_sample(seed: int, epoch: int, n: int, position: npt.ArrayLike) -> Indices:
    """The samples (0..n-1) at ``position`` (any shape, 0..n-1) of an epoch's order. Raises ValueError outside of it."""
    network = _Feistel(seed, epoch, n)
    return _walk(network.forward, n, position)


def sample_to_position(seed: int, epoch: int, n: int, sample: npt.ArrayLike) -> Indices:
    """The inverse of ``position_to_sample``."""
    network = _Feistel(seed, epoch, n)
    return _walk(network.backward, n, sample)


class _Feistel:
    """A permutation of the numbers below 2**bits, where bits is the least with 2**bits >= n (at least 2)."""

    def __init__(self, seed: int, epoch: int, n: int) -> None:
        bits = max(2, (n - 1).bit_length())
        self._low = np.uint64(bits // 2)
        self._masks = (np.uint64((1 << (bits - bits // 2)) - 1), np.uint64((1 << (bits // 2)) - 1))
        self._keys = [np.uint64(derive("order", seed, epoch, round_)) for round_ in range(_ROUNDS)]

    def forward(self, values: _Words) -> _Words:
        return self._run(values, range(_ROUNDS))

    def backward(self, values: _Words) -> _Words:
        return self._run(values, reversed(range(_ROUNDS)))

    def _run(self, values: _Words, rounds: Iterable[int]) -> _Words:
        halves = [values >> self._low, values & self._masks[1]]
        for round_ in rounds:
            side = round_ % 2
            halves[side] = halves[side] ^ (_mix(halves[1 - side] ^ self._keys[round_]) & self._masks[side])
        return (halves[0] << self._low) | halves[1]


def _mix(words: _Words) -> _Words:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every output bit depends on every input bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _walk(permute: _Rounds, n: int, start: npt.ArrayLike) -> Indices:
    given = np.asarray(start, dtype=np.int64)
    if given.size and (given.min() < 0 or given.max() >= n):
        raise ValueError(f"positions and samples lie in 0..{n - 1}, got {given.min()}..{given.max()}")
    words = permute(given.astype(np.uint64).reshape(-1))
    outside = np.flatnonzero(words >= n)
    while outside.size:
        words[outside] = permute(words[outside])
        outside = outside[words[outside] >= n]
    return words.astype(np.int64).reshape(given.shape)
