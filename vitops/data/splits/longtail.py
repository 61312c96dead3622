"""Long-tailed training sets: how many images each class keeps, and which ones.

``exp``: n_c = floor(n_max * f^(c / (C - 1))); ``step``: the first floor(C / 2) classes keep n_max, the others
floor(n_max * f), with f = 1 / imbalance_factor (Cui et al. 2019; Cao et al. 2019, section 4). Class 0 is the head.
"""

import numpy as np
from numpy.typing import NDArray

from vitops.config.datasets import LongtailSplit
from vitops.data.splits.members import Members, Population, first_ranks, held_out, test_members
from vitops.errors import UsageError

Ints = NDArray[np.int64]


def longtail_counts(
    samples: int, *, classes: int, imbalance: str, imbalance_factor: float, n_max: int | None = None
) -> Ints:
    """Images per class, (C,), not increasing.

    ``samples`` is the size of the set that is thinned out; the largest class gets ``n_max`` or samples / classes.
    Raises UsageError for an unknown kind, a factor below 1, or a class that would be empty.
    """
    if imbalance not in ("exp", "step"):
        raise UsageError(f"imbalance must be exp or step, got {imbalance!r}")
    if imbalance_factor < 1:
        raise UsageError(f"imbalance_factor must be at least 1, got {imbalance_factor} (write 100, not 0.01)")
    if classes < 2:
        raise UsageError(f"a long-tailed split needs at least 2 classes, got {classes}")
    largest = samples / classes if n_max is None else float(n_max)
    smallest = 1.0 / imbalance_factor
    if imbalance == "exp":
        # Python's own power: numpy's vectorised one may differ in the last bit, and floor shows it.
        shares = [smallest ** (c / (classes - 1.0)) for c in range(classes)]
    else:
        shares = [1.0] * (classes // 2) + [smallest] * (classes - classes // 2)
    counts = np.array([int(largest * share) for share in shares], dtype=np.int64)
    _refuse_empty(counts, imbalance_factor=imbalance_factor)
    return counts


def official_selection(labels: NDArray[np.integer], counts: NDArray[np.integer], *, seed: int) -> Ints:
    """Positions in ``labels`` (N,) that the papers' code selects, class by class in shuffled order.

    One legacy generator serves all classes in ascending order and shuffles each one, whether it is thinned out or not
    (DeiT-LT, official code). Raises UsageError where a class has fewer images than its count.
    """
    rng = np.random.RandomState(seed)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(len(counts) + 1))
    chosen = []
    for label, count in enumerate(counts):
        positions = order[starts[label] : starts[label + 1]]
        rng.shuffle(positions)
        if count > len(positions):
            raise UsageError(f"class {label} has {len(positions)} images, the long tail asks for {count}: lower n_max")
        chosen.append(positions[:count])
    return np.concatenate(chosen).astype(np.int64)


def longtail(config: LongtailSplit, population: Population, *, name: str) -> Members:
    """Long-tailed train set; validation from what the selection left out; test as configured."""
    test, pool = test_members(config.test, population, name=name, seed=config.seed)
    labels = population.labels[pool]
    counts = longtail_counts(
        len(pool),
        classes=len(population.classes),
        imbalance=config.imbalance,
        imbalance_factor=config.imbalance_factor,
        n_max=config.n_max,
    )
    _refuse_more_than_there_is(counts, labels, population)
    if config.selection == "official":
        train = pool[official_selection(labels, counts, seed=config.seed)]
    else:
        train = first_ranks(population, pool, counts, name=name, seed=config.seed)
    left_out = np.setdiff1d(pool, train, assume_unique=True)
    val = held_out(population, left_out, config.val_per_class, name=name, seed=config.seed)
    return Members(train=train, val=val, test=test)


def _refuse_empty(counts: Ints, *, imbalance_factor: float) -> None:
    if counts.min() < 1:
        label = int(np.argmax(counts < 1))
        raise UsageError(
            f"imbalance_factor {imbalance_factor:g} leaves class {label} without a sample "
            f"(the largest class keeps {int(counts.max())}): lower imbalance_factor or raise n_max"
        )


def _refuse_more_than_there_is(counts: Ints, labels: NDArray[np.integer], population: Population) -> None:
    available = np.bincount(labels, minlength=len(counts))
    short = np.flatnonzero(counts > available)
    if len(short):
        label = int(short[0])
        raise UsageError(
            f"class {population.classes[label]!r} has {available[label]} training images, the long tail asks for "
            f"{counts[label]}: set n_max to at most {int(available.min())}"
        )
