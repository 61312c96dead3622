"""timm's learning rate schedules per update: a pure function of the update's number, so there is nothing to save."""

import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.step_lr import StepLRScheduler

from vitops.config.training import Cosine, Schedule, Step


def build(section: Schedule, optimizer: torch.optim.Optimizer, *, steps_per_epoch: int, epochs: int) -> Scheduler:
    """The schedule for ``optimizer``; ``step_update(n)`` sets the rate of update ``n`` (from 0) in its groups.

    Linear warm-up to the optimizer's own rate, then half a cosine over the remaining updates, or the rate multiplied by
    ``factor`` from each milestone epoch on, or once more after every ``every`` epochs.
    """
    warmup = round(section.warmup_epochs * steps_per_epoch)
    if isinstance(section, Cosine):
        return CosineLRScheduler(
            optimizer,
            t_initial=max(1, epochs * steps_per_epoch - warmup),
            lr_min=section.min_lr,
            warmup_t=warmup,
            warmup_lr_init=section.warmup_lr,
            warmup_prefix=True,
            t_in_epochs=False,
        )
    if isinstance(section, Step):
        return StepLRScheduler(
            optimizer,
            decay_t=section.every * steps_per_epoch,
            decay_rate=section.factor,
            warmup_t=warmup,
            warmup_lr_init=section.warmup_lr,
            warmup_prefix=False,
            t_in_epochs=False,
        )
    return MultiStepLRScheduler(
        optimizer,
        decay_t=[milestone * steps_per_epoch + 1 for milestone in section.milestones],  # timm counts updates from 1
        decay_rate=section.factor,
        warmup_t=warmup,
        warmup_lr_init=section.warmup_lr,
        warmup_prefix=False,
        t_in_epochs=False,
    )
