"""What keeps a training: resumes it, writes its checkpoints beside it, reports its progress.

Laws: rank 0 decides and all ranks follow; the training goes on while a checkpoint is written, but waits for it rather
than begin a step in which a kill would cost more than one interval (or that step alone, if it takes longer), and the
next start says what a kill did cost. What counts is the disk: for an upload to a shared store no step waits. An
interval is ``checkpoint_seconds`` or ``checkpoint_steps``, whichever ends first; a checkpoint begins when half of it
has passed. All ranks compute under one arithmetic. A training that went on under another one says so for ever after:
each change stands in every later checkpoint.
"""

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitops.config.pipelines import Resources
from vitops.errors import Interrupted, Overtaken, VitopsError
from vitops.store import cache_file, canonical
from vitops.store.job import Position, Work
from vitops.training.checkpoint import Checkpoints, Saved
from vitops.training.comm import Comm
from vitops.training.environment import described, differences, facts
from vitops.training.running import Training
from vitops.training.shared_checkpoints import SharedCheckpoints, opened
from vitops.training.state import capture, restore

_log = logging.getLogger(__name__)
_REPORT_SECONDS = 0.2
_REACHED = "reached.json"
_GO_ON, _SAVE, _STOP, _OVERTAKEN = range(4)


@dataclass(frozen=True)
class _Mark:
    """A moment of a training: steps done since its start, and the clock."""

    steps: int
    clock: float

    def reaches(self, since: "_Mark", *, steps: float | None, seconds: float) -> bool:
        """Whether this many steps or seconds have passed since an earlier mark."""
        return self.clock - since.clock >= seconds or (steps is not None and self.steps - since.steps >= steps)


class Keeper:
    """See the module. One per training; all ranks call the same methods in the same order."""

    def __init__(
        self,
        training: Training,
        identity: dict[str, Any],
        *,
        folder: Path,
        resources: Resources,
        report: Callable[..., None],
        stopping: Callable[[], bool],
        allow_environment_change: bool,
        shared: str | None = None,
    ) -> None:
        self._training, self._identity, self._folder = training, identity, folder
        self._resources, self._report, self._stopping = resources, report, stopping
        self._allow_environment_change = allow_environment_change
        self.environment_changes: list[dict[str, Any]] = []
        self.work_lost: Work | None = None
        self._environments = _everywhere(training.comm, facts(resources.device))
        self._resumed: dict[str, Any] = {}
        self._checkpoints = _checkpoints(folder, shared) if training.comm.rank == 0 else None
        self._steps = 0
        self._begun = self._durable = self._now()
        self._reported_at = self._stepped_at = time.monotonic()
        self._step_seconds = 0.0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._overtaken: Overtaken | None = None

    def resume(self) -> Position | None:
        """Load the newest good checkpoint on every rank; None when there is none."""
        data = self._training.comm.spread(self._newest())
        if not data:
            self._note_lost(Position(epoch=0, step=0))
            self._check_ranks(Position(epoch=0, step=0))
            return None
        saved = Saved.unpack(data)
        position = Position(**saved.record["position"])
        self._check(saved.record, position)
        self._check_ranks(position)
        self._resumed["resumed_from"] = position.model_dump()
        self._note_lost(position)
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
        """Save, stop or report where it is time to. Raises Interrupted on every rank when the training is to end."""
        self._steps += 1
        self._step_seconds = time.monotonic() - self._stepped_at
        decision = self._training.comm.agree(self._decide(epoch, step))
        if decision == _OVERTAKEN:
            raise self._overtaken or Overtaken(f"another run has taken over the training in {self._folder}")
        if self._training.comm.rank == 0:
            if decision != _GO_ON:
                self._begin(Position(epoch=epoch, step=step + 1))
            if decision == _STOP or self._last(epoch, step) or self._too_much_at_risk():
                self._settle()
            self._show(epoch, step)
        if decision == _STOP:
            raise Interrupted(
                f"stopped in epoch {epoch} after step {step + 1}; the work is saved. Run the same command to go on."
            )
        self._stepped_at = time.monotonic()

    def close(self) -> None:
        """End the writing thread; what it was writing is finished first. An upload is waited for, but not long."""
        self._writer.shutdown()
        if self._checkpoints:
            self._checkpoints.close()

    def _decide(self, epoch: int, step: int) -> int:
        if self._training.comm.rank:
            return _GO_ON
        steps, seconds = self._resources.checkpoint_steps, self._resources.checkpoint_seconds
        try:
            if self._writing and (self._writing.done() or self._too_much_at_risk()):
                self._settle()
        except Overtaken as error:
            self._overtaken = error
            return _OVERTAKEN
        if self._last(epoch, step):
            return _SAVE
        if self._stopping():
            return _STOP
        due = self._now().reaches(self._begun, steps=steps and steps / 2, seconds=seconds / 2)
        return _SAVE if (due or self._too_much_at_risk()) and not self._writing else _GO_ON

    def _too_much_at_risk(self) -> bool:
        """Whether a kill at the end of a next step as long as the last would cost more than an interval."""
        now, steps, seconds = self._now(), self._resources.checkpoint_steps, self._resources.checkpoint_seconds
        too_many = steps is not None and now.steps + 1 - self._durable.steps > steps
        return too_many or now.clock + self._step_seconds - self._durable.clock > seconds

    def _last(self, epoch: int, step: int) -> bool:
        training = self._training
        return training.objective.done or (epoch == training.recipe.epochs - 1 and step == training.steps - 1)

    def _begin(self, position: Position) -> None:
        """Copy the state and let the thread write it."""
        assert self._checkpoints is not None
        self._settle()
        training = self._training
        tensors, state = capture(training.model, training.optimizer, training.objective, training.average)
        record = {
            "position": position.model_dump(),
            "history": list(training.history),
            "losses": list(training.losses),
            "state": state,
            "identity": self._identity,
            "environment": self._environments[0],
            "environment_changes": list(self.environment_changes),
        }
        self._begun = self._now()
        self._writing = self._writer.submit(self._checkpoints.save, position, Saved(tensors, record))

    def _settle(self) -> None:
        """Wait until what is being written is on disk. Raises what the writing raised."""
        if self._writing:
            writing, self._writing = self._writing, None
            writing.result()
            self._durable = self._begun

    def _now(self) -> _Mark:
        return _Mark(self._steps, time.monotonic())

    def _newest(self) -> bytes:
        if self._checkpoints is None:
            return b""
        saved, damaged = self._checkpoints.newest()
        for sentence in damaged:
            _log.warning("%s", sentence)
        if damaged:
            self._report(warning=" ".join(damaged))
        return saved.pack() if saved else b""

    def _check(self, record: dict[str, Any], position: Position) -> None:
        """A checkpoint continues exactly the training, and in exact mode the arithmetic, that it was written by."""
        remedy = f"Go on where it was begun, or remove {self._folder} to start over"
        if found := differences(record["identity"], self._identity):
            raise VitopsError(
                f"the checkpoints in {self._folder} belong to another training ({described(found)}). {remedy}."
            )
        self.environment_changes = list(record["environment_changes"])
        if found := differences(record["environment"], self._environments[0]):
            message = f"the checkpoint was written where arithmetic differs ({described(found)})"
            self._other_arithmetic(message, found, position, remedy=remedy)

    def _check_ranks(self, position: Position) -> None:
        """Bits are those of one arithmetic only if every rank has it."""
        for rank, own in enumerate(self._environments):
            if found := differences(self._environments[0], own):
                message = f"worker {rank} computes under another arithmetic than worker 0 ({described(found)})"
                self._other_arithmetic(message, found, position, remedy="Let all workers run on machines of one kind")

    def _other_arithmetic(self, message: str, found: dict[str, Any], position: Position, *, remedy: str) -> None:
        if self._resources.mode == "exact" and not self._allow_environment_change:
            raise VitopsError(
                f"{message}: the result would not have the same bits. {remedy}; "
                "`vitops run --allow-environment-change` goes on here and marks the receipt."
            )
        self.environment_changes.append({"position": position.model_dump(), "changes": found})
        _log.warning("%s", message)
        if self._training.comm.rank == 0:
            self._report(warning=message)

    def _note_lost(self, position: Position) -> None:
        """Find what the notes of the training that was killed say it had done beyond ``position``."""
        reached = cache_file.load(self._folder / _REACHED) if self._training.comm.rank == 0 else None
        if reached is None:
            return
        steps = (reached["epoch"] - position.epoch) * self._training.steps + reached["step"] - position.step
        self.work_lost = Work(steps=max(0, steps), seconds=reached["seconds"] if steps > 0 else 0.0)
        self._resumed["work_lost"] = self.work_lost.model_dump()

    def _show(self, epoch: int, step: int) -> None:
        training, now = self._training, self._now()
        last = step == training.steps - 1
        if now.clock - self._reported_at < _REPORT_SECONDS and not last:
            return
        self._reported_at = now.clock
        at_risk = round(now.clock - self._durable.clock, 3)
        cache_file.save(self._folder / _REACHED, {"epoch": epoch, "step": step + 1, "seconds": at_risk})
        self._report(
            epoch=epoch,
            step=step + 1,
            epochs=training.recipe.epochs,
            steps=training.steps,
            loss=training.losses[-1],
            lr=training.rate(epoch, step),
            **self._resumed,
        )


def _everywhere(comm: Comm, own: dict[str, Any]) -> list[dict[str, Any]]:
    """What each rank says, by rank."""
    return [json.loads(said) for said in comm.collect(canonical.dumps(own))]


def _checkpoints(folder: Path, shared: str | None) -> Checkpoints:
    return Checkpoints(folder, SharedCheckpoints(opened(shared)) if shared else None)
