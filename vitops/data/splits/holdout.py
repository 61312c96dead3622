"""Train, validation and test by keyed rank; every sample is used."""

import numpy as np

from vitops.config.datasets import HoldoutSplit
from vitops.data.splits.members import Members, Population, first_ranks, test_members
from vitops.errors import UsageError


def holdout(config: HoldoutSplit, population: Population, *, name: str) -> Members:
    """Validation takes ``val_per_class`` images of each class, at most half of what the test set leaves; then train."""
    test, pool = test_members(config.test, population, name=name, seed=config.seed)
    available = np.bincount(population.labels[pool], minlength=len(population.classes))
    if available.min() < 2:
        label = int(np.argmin(available))
        raise UsageError(
            f"class {population.classes[label]!r} has {available[label]} images beside the test set: "
            "one for training and one for validation are the least"
        )
    val_counts = np.minimum(config.val_per_class, available // 2)
    val = first_ranks(population, pool, val_counts, name=name, seed=config.seed, role="val")
    rest = np.setdiff1d(pool, val, assume_unique=True)
    train = first_ranks(population, rest, available, name=name, seed=config.seed)
    return Members(train=train, val=val, test=test)
