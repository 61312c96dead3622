"""The one training loop: a model, an objective, a stream of samples and a recipe; every method runs through it.

Laws: the result is a pure function of (initial weights, recipe, seed, data). It does not depend on the number of
workers (``mode: exact``), on when checkpoints were written, or on how often the training was killed and resumed.
``mode: fast`` sums gradients over workers in the backend's order, with any kernels: its bits change with the number of
workers.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitops.config.pipelines import Resources
from vitops.config.training import Recipe
from vitops.losses.objective import Objective
from vitops.store.job import Position, Work
from vitops.training.comm import Comm
from vitops.training.environment import arithmetic
from vitops.training.keeper import Keeper
from vitops.training.running import Stream, Training


@dataclass(frozen=True)
class FitResult:
    """What a finished training leaves beside the model's weights."""

    history: list[dict[str, Any]]
    """One entry per epoch: ``epoch``, ``loss``, ``lr`` and the objective's summary."""
    resumed_from: Position | None
    """Epoch, and steps done in it, of the checkpoint this call went on from."""
    work_lost: Work | None
    """What was done beyond that checkpoint before, and is done again; None where nothing is known of it."""
    ema_state: dict[str, Tensor] | None
    """Averaged weights by state-dict name, when the recipe asks for them."""
    environment_changes: list[dict[str, Any]]
    """Where it went on under another arithmetic: ``position``, and ``changes`` as ``environment.differences`` names."""


def fit(
    model: nn.Module,
    objective: Objective,
    stream: Stream,
    recipe: Recipe,
    *,
    seed: int,
    comm: Comm,
    checkpoints: Path,
    shared_checkpoints: str | None = None,
    resources: Resources,
    report: Callable[..., None],
    stopping: Callable[[], bool] = lambda: False,
    key: str = "",
    allow_environment_change: bool = False,
) -> FitResult:
    """Train ``model`` in place, from the newest checkpoint in ``checkpoints`` (or at the URL) if there is one.

    ``report(**values)`` is called on rank 0 as the training advances; ``stopping()``, asked on rank 0 after each step,
    ends it with a checkpoint; ``key`` (of the stage) is noted in checkpoints. Raises Interrupted on every rank when
    asked to stop; VitopsError when the loss is not finite, when the folder's checkpoints belong to another training,
    and in exact mode when they were written under another arithmetic (``allow_environment_change`` goes on with them).
    """
    training = Training(model, objective, stream, recipe, seed=seed, comm=comm, resources=resources)
    identity = {"recipe": recipe.parameters(), "seed": seed, "steps_per_epoch": stream.steps_per_epoch, "key": key}
    with arithmetic(threads=resources.threads, exact=resources.mode == "exact"):
        keeper = Keeper(
            training,
            identity,
            folder=checkpoints,
            resources=resources,
            report=report,
            stopping=stopping,
            allow_environment_change=allow_environment_change,
            shared=shared_checkpoints,
        )
        with closing(keeper):
            resumed = keeper.resume()
            _run(training, keeper, resumed)
    ema = training.average.module.state_dict() if training.average else None
    return FitResult(training.history, resumed, keeper.work_lost, ema, keeper.environment_changes)


def _run(training: Training, keeper: Keeper, resumed: Position | None) -> None:
    first = resumed or Position(epoch=0, step=0)
    for epoch in range(first.epoch, training.recipe.epochs):
        start = first.step if epoch == first.epoch else 0
        if not start:
            training.objective.on_epoch(epoch)
        for step in range(start, training.steps):
            if training.objective.done:
                break
            training.step(epoch, step)
            keeper.after_step(epoch, step)
        training.close_epoch(epoch)
        if training.objective.done:
            break
