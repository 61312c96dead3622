"""The one training loop: a model, an objective, a stream of samples and a recipe; every method runs through it.

Laws: the result is a pure function of (initial weights, recipe, seed, data). It does not depend on the number of
workers (``mode: exact``), on when checkpoints were written, or on how often the training was killed and resumed.
``mode: fast`` sums gradients over workers in the backend's order: its bits change with the number of workers.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vitops.config.pipelines import Resources
from vitops.config.training import Recipe
from vitops.errors import Interrupted, VitopsError
from vitops.losses.objective import Contributions, Objective
from vitops.store.job import Position
from vitops.training import optimizer as optimizers
from vitops.training.average import WeightAverage
from vitops.training.checkpoint import Checkpoints, Saved
from vitops.training.comm import Comm
from vitops.training.environment import arithmetic, facts
from vitops.training.gradients import Key, SampleOf, StepGradient
from vitops.training.sam import perturbed
from vitops.training.schedules import learning_rate
from vitops.training.state import capture, restore

_log = logging.getLogger(__name__)
_REPORT_SECONDS = 0.2
_GO_ON, _SAVE, _STOP = 0, 1, 2


class Stream(Protocol):
    """Where micro-batches come from: a pure function of the position (``vitops.data.loader.TrainStream``)."""

    steps_per_epoch: int

    def micro_batch(self, epoch: int, step: int, m: int, *, mix: bool) -> dict[str, Tensor]:
        """Micro-batch ``m`` of a step."""
        ...


@dataclass(frozen=True)
class FitResult:
    """What a finished training leaves beside the model's weights."""

    history: list[dict[str, Any]]
    """One entry per epoch: ``epoch``, ``loss``, ``lr`` and the objective's summary."""
    resumed_from: Position | None
    """Epoch, and steps done in it, of the checkpoint this call went on from."""
    ema_state: dict[str, Tensor] | None
    """Averaged weights by state-dict name, when the recipe asks for them."""


def fit(
    model: nn.Module,
    objective: Objective,
    stream: Stream,
    recipe: Recipe,
    *,
    seed: int,
    comm: Comm,
    checkpoints: Path,
    resources: Resources,
    report: Callable[..., None],
    stopping: Callable[[], bool] = lambda: False,
    key: str = "",
) -> FitResult:
    """Train ``model`` in place, from the newest checkpoint in ``checkpoints`` if there is one.

    ``report(**values)`` is called on rank 0 as the training advances; ``stopping()``, asked on rank 0 after each step,
    ends it with a checkpoint; ``key`` (of the stage) is noted in checkpoints. Raises Interrupted on every rank when
    asked to stop; VitopsError when the loss is not finite, or when the folder's checkpoints belong to another training.
    """
    training = _Training(model, objective, stream, recipe, seed=seed, comm=comm, resources=resources)
    identity = {"recipe": recipe.parameters(), "seed": seed, "steps_per_epoch": stream.steps_per_epoch, "key": key}
    with arithmetic(threads=resources.threads, exact=resources.mode == "exact"):
        keeper = _Keeper(training, identity, folder=checkpoints, resources=resources, report=report, stopping=stopping)
        resumed = keeper.resume()
        _run(training, keeper, resumed)
    ema = training.average.state if training.average else None
    return FitResult(training.history, resumed, ema)


def _run(training: "_Training", keeper: "_Keeper", resumed: Position | None) -> None:
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


class _Training:
    """The running state: model, optimizer, averages and history; one call per step."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        stream: Stream,
        recipe: Recipe,
        *,
        seed: int,
        comm: Comm,
        resources: Resources,
    ) -> None:
        self.device = torch.device(resources.device)
        self.model = model.to(self.device).train()
        self.objective, self.stream, self.recipe = objective, stream, recipe
        self.seed, self.comm, self.steps = seed, comm, stream.steps_per_epoch
        self.optimizer = optimizers.build(recipe.optimizer, model)
        self.average = WeightAverage(model, recipe.ema) if recipe.ema else None
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self._gradient = StepGradient(
            model, objective, comm=comm, micro_batches=recipe.micro_batches, exact=resources.mode == "exact"
        )
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}

    def rate(self, epoch: int, step: int) -> float:
        """Learning rate of a step."""
        update = epoch * self.steps + step
        return learning_rate(
            self.recipe.schedule,
            base=self.recipe.optimizer.lr,
            update=update,
            steps_per_epoch=self.steps,
            epochs=self.recipe.epochs,
        )

    def step(self, epoch: int, step: int) -> None:
        """One optimizer step, every hook of the objective in its place."""
        optimizers.set_rate(self.optimizer, self.rate(epoch, step))
        loss, contributions = self._backward(epoch, step)
        if not math.isfinite(loss):
            raise VitopsError(
                f"the loss became {loss} in epoch {epoch}, step {step}. Lower optimizer.lr, add warm-up or clip_grad."
            )
        self.objective.merge(contributions)
        self.objective.after_backward({name: value.grad for name, value in self._parameters.items()})  # type: ignore[misc]
        if self.recipe.clip_grad is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.recipe.clip_grad)
        self.optimizer.step()
        self.objective.after_step(self.optimizer)
        if self.average is not None:
            self.average.update(self.model)
        self.losses.append(loss)

    def close_epoch(self, epoch: int) -> None:
        """Write the epoch's line of the history."""
        rate = self.rate(epoch, max(0, len(self.losses) - 1))
        mean = math.fsum(self.losses) / max(1, len(self.losses))
        self.history.append({"epoch": epoch, "loss": mean, "lr": rate, **self.objective.summary()})
        self.losses = []

    def _backward(self, epoch: int, step: int) -> tuple[float, list[Contributions]]:
        """Gradients of the step in ``.grad``; with SAM those at the perturbed weights, but the first pass's numbers."""
        key: Key = (self.seed, "step", epoch, step)
        sam = self.recipe.sam
        if sam is None or sam.rho == 0:
            return self._gradient.run(self._samples(epoch, step), key)
        samples = _kept(self._samples(epoch, step))
        first = self._gradient.run(samples, key)
        with perturbed(list(self._parameters.values()), rho=sam.rho, adaptive=sam.adaptive):
            self._gradient.run(samples, key)
        return first

    def _samples(self, epoch: int, step: int) -> SampleOf:
        mix = self.recipe.mixup is not None and self.objective.mixes(epoch)

        def sample(m: int) -> dict[str, Tensor]:
            found = self.stream.micro_batch(epoch, step, m, mix=mix)
            return {name: value.to(self.device) for name, value in found.items()}

        return sample


def _kept(samples: SampleOf) -> SampleOf:
    """The same samples, made once and kept for a second pass over the step."""
    kept: dict[int, dict[str, Tensor]] = {}

    def sample(m: int) -> dict[str, Tensor]:
        if m not in kept:
            kept[m] = samples(m)
        return dict(kept[m])

    return sample


class _Keeper:
    """Resumes a training, writes its checkpoints, reports its progress. Rank 0 decides, all ranks follow."""

    def __init__(
        self,
        training: _Training,
        identity: dict[str, Any],
        *,
        folder: Path,
        resources: Resources,
        report: Callable[..., None],
        stopping: Callable[[], bool],
    ) -> None:
        self._training, self._identity, self._folder = training, identity, folder
        self._resources, self._report, self._stopping = resources, report, stopping
        self._environment = facts(resources.device)
        self._checkpoints = Checkpoints(folder) if training.comm.rank == 0 else None
        self._saved_at = self._reported_at = time.monotonic()
        self._unsaved = 0

    def resume(self) -> Position | None:
        """Load the newest good checkpoint on every rank; None when there is none."""
        data = self._training.comm.spread(self._newest())
        if not data:
            return None
        saved = Saved.unpack(data)
        self._check(saved.record)
        position = Position(**saved.record["position"])
        training = self._training
        training.history, training.losses = saved.record["history"], saved.record["losses"]
        training.objective.on_epoch(position.epoch)
        restore(
            saved.tensors,
            saved.record["state"],
            model=training.model,
            optimizer=training.optimizer,
            objective=training.objective,
            average=training.average,
        )
        return position

    def after_step(self, epoch: int, step: int) -> None:
        """Save, stop or report where it is time to."""
        self._unsaved += 1
        decision = self._training.comm.agree(self._decide(epoch, step))
        if self._training.comm.rank == 0:
            if decision != _GO_ON:
                self._save(Position(epoch=epoch, step=step + 1))
            self._show(epoch, step)
        if decision == _STOP:
            raise Interrupted(
                f"stopped in epoch {epoch} after step {step + 1}; the work is saved. Run the same command to go on."
            )

    def _decide(self, epoch: int, step: int) -> int:
        if self._training.comm.rank:
            return _GO_ON
        last = epoch == self._training.recipe.epochs - 1 and step == self._training.steps - 1
        if self._stopping() and not last:
            return _STOP
        due = time.monotonic() - self._saved_at >= self._resources.checkpoint_seconds
        enough = self._resources.checkpoint_steps is not None and self._unsaved >= self._resources.checkpoint_steps
        return _SAVE if due or enough or last or self._training.objective.done else _GO_ON

    def _save(self, position: Position) -> None:
        assert self._checkpoints is not None
        training = self._training
        tensors, state = capture(training.model, training.optimizer, training.objective, training.average)
        record = {
            "position": position.model_dump(),
            "history": training.history,
            "losses": training.losses,
            "state": state,
            "identity": self._identity,
            "environment": self._environment,
        }
        self._checkpoints.save(position, Saved(tensors, record))
        self._saved_at, self._unsaved = time.monotonic(), 0

    def _newest(self) -> bytes:
        if self._checkpoints is None:
            return b""
        saved, damaged = self._checkpoints.newest()
        for sentence in damaged:
            _log.warning("%s", sentence)
        if damaged:
            self._report(warning=" ".join(damaged))
        return saved.pack() if saved else b""

    def _check(self, record: dict[str, Any]) -> None:
        """A checkpoint continues exactly the training, and in exact mode the arithmetic, that it was written by."""
        remedy = f"Go on where it was begun, or remove {self._folder} to start over."
        if changes := _differences(record["identity"], self._identity):
            raise VitopsError(f"the checkpoints in {self._folder} belong to another training ({changes}). {remedy}")
        if changes := _differences(record["environment"], self._environment):
            message = f"the checkpoint was written where arithmetic differs ({changes})"
            if self._resources.mode == "exact":
                raise VitopsError(f"{message}: the result would not have the same bits. {remedy}")
            _log.warning("%s", message)

    def _show(self, epoch: int, step: int) -> None:
        training, now = self._training, time.monotonic()
        last = step == training.steps - 1
        if now - self._reported_at < _REPORT_SECONDS and not last:
            return
        self._reported_at = now
        self._report(
            epoch=epoch,
            step=step + 1,
            epochs=training.recipe.epochs,
            steps=training.steps,
            loss=training.losses[-1],
            lr=training.rate(epoch, step),
        )


def _differences(old: Any, new: Any, name: str = "") -> str:
    """``name: old -> new`` for each leaf where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [_differences(old.get(k), new.get(k), f"{name}.{k}".lstrip(".")) for k in sorted({*old, *new})]
        return ", ".join(part for part in parts if part)
    return "" if old == new else f"{name}: {old} -> {new}"
