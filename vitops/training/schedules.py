"""Learning rates as a pure function of the update's number: nothing to save, nothing to step."""

import math

from vitops.config.training import Cosine, Schedule


def learning_rate(schedule: Schedule, *, base: float, update: int, steps_per_epoch: int, epochs: int) -> float:
    """The rate of update number ``update`` (from 0): linear warm-up to ``base``, then the schedule's own shape."""
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if update < warmup:
        return schedule.warmup_lr + (base - schedule.warmup_lr) * update / warmup
    if isinstance(schedule, Cosine):
        progress = (update - warmup) / max(1, epochs * steps_per_epoch - warmup)
        return schedule.min_lr + (base - schedule.min_lr) * (1 + math.cos(math.pi * progress)) / 2
    passed = sum(update >= milestone * steps_per_epoch for milestone in schedule.milestones)
    return base * schedule.factor**passed
