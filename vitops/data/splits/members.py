"""Who may be selected, by which rank, and what a split consists of.

Laws: a sample's rank depends on nothing but (seed, split name, role, its SHA-256), so adding or removing other samples
never reorders the rest; train, val and test are disjoint; everything is vectorised over positions in the population.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitops.config.datasets import PerClassTest, SubsetTest
from vitops.errors import UsageError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Population:
    """The live samples of a dataset version, in slot order."""

    slots: NDArray[np.uint32]
    """(N,)"""
    labels: NDArray[np.uint16]
    """(N,)"""
    digests: NDArray[np.uint8]
    """(N, 32): SHA-256 of the stored bytes."""
    subsets: NDArray[np.str_]
    """(N,): ``train``, ``test`` or empty."""
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Members:
    """Positions in the population, each array in the order of its index file."""

    train: Ints
    val: Ints
    test: Ints


def ranks(population: Population, positions: Ints, *, name: str, role: str, seed: int) -> NDArray[np.uint64]:
    """The 64-bit rank of each position: the mixer of SplitMix64 over salt and first 8 bytes of the SHA-256."""
    salt = hashlib.sha256(f"{seed}\0{name}\0{role}".encode()).digest()[:8]
    x = np.ascontiguousarray(population.digests[positions, :8]).view(">u8")[:, 0].astype(np.uint64)
    x = x ^ np.uint64(int.from_bytes(salt, "big"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def first_ranks(
    population: Population, positions: Ints, counts: NDArray[np.integer], *, name: str, seed: int, role: str = "train"
) -> Ints:
    """The ``counts[c]`` positions of lowest rank in each class c, class by class, ties by the full digest."""
    rank = ranks(population, positions, name=name, role=role, seed=seed)
    labels = population.labels[positions]
    order = np.lexsort((rank, labels))
    order = _settle_ties(order, rank, labels, population.digests[positions])
    starts = np.searchsorted(labels[order], np.arange(len(counts) + 1))
    chosen = [
        order[start : min(start + count, stop)] for start, stop, count in zip(starts, starts[1:], counts, strict=False)
    ]
    return positions[np.concatenate(chosen)] if chosen else positions[:0]


def held_out(population: Population, positions: Ints, per_class: int, *, name: str, seed: int) -> Ints:
    """Up to ``per_class`` validation positions of each class."""
    counts = np.full(len(population.classes), per_class)
    return first_ranks(population, positions, counts, name=name, seed=seed, role="val")


def test_members(
    config: SubsetTest | PerClassTest, population: Population, *, name: str, seed: int
) -> tuple[Ints, Ints]:
    """(test positions in slot order, positions left for training and validation).

    Raises UsageError where the subset does not exist or a class is too small.
    """
    everything = np.arange(len(population.slots))
    if isinstance(config, SubsetTest):
        inside = population.subsets == config.name
        _refuse_missing_subset(config, population)
        test = everything[inside]
    else:
        _refuse_small_classes(config, population)
        counts = np.full(len(population.classes), config.count)
        test = np.sort(first_ranks(population, everything, counts, name=name, seed=seed, role="test"))
    _refuse_untested_class(test, population)
    return test, np.setdiff1d(everything, test, assume_unique=True)


def _settle_ties(order: Ints, rank: NDArray[np.uint64], labels: NDArray[np.uint16], digests: NDArray[np.uint8]) -> Ints:
    """Sort again by the full digest, but only if two ranks of one class are equal (never seen but for equal bytes)."""
    tied = (rank[order][1:] == rank[order][:-1]) & (labels[order][1:] == labels[order][:-1])
    if not tied.any():
        return order
    sorters: list[NDArray[np.generic]] = [digests[:, byte] for byte in range(digests.shape[1] - 1, 7, -1)]
    return np.lexsort([*sorters, rank, labels])


def _refuse_missing_subset(config: SubsetTest, population: Population) -> None:
    names = sorted(set(population.subsets.tolist()) - {""})
    if config.name not in names:
        there = f"it has {', '.join(names)}" if names else "its class folders stand in no subset folder"
        raise UsageError(
            f"test: the source has no subset {config.name!r} ({there}): "
            "draw the test set instead with test: {kind: per_class, count: 50}"
        )
    if len(names) == 1 and (population.subsets == config.name).all():
        raise UsageError(
            f"test: every sample is in subset {config.name!r}, nothing is left to train on: "
            "draw the test set instead with test: {kind: per_class, count: 50}"
        )


def _refuse_small_classes(config: PerClassTest, population: Population) -> None:
    sizes = np.bincount(population.labels, minlength=len(population.classes))
    short = np.flatnonzero(sizes <= config.count)
    if len(short):
        label = int(short[0])
        raise UsageError(
            f"test: class {population.classes[label]!r} has {sizes[label]} samples, {config.count} test images "
            f"leave none to train on: set count below {int(sizes.min())}"
        )


def _refuse_untested_class(test: Ints, population: Population) -> None:
    sizes = np.bincount(population.labels[test], minlength=len(population.classes))
    if not sizes.all():
        name = population.classes[int(np.argmin(sizes))]
        raise UsageError(f"test: class {name!r} would get 0 test samples: every class needs at least one")
