"""The runs that a store remembers: what each was asked for, and how it ended.

Laws: a run is *running* while its supervisor holds the lock of its folder, which every death frees, on whatever machine
it was; without that it ended as ``outcome.json`` says (0 done, 75 stopped with its work saved, else failed), or was
*killed* if that says nothing or says that the flow process died. A record that cannot be read says nothing; a run
without a legible request is named, for nothing can go on with it. Of several runs of one request the latest that did
not fail alone speaks for it: what it went on with is no longer interrupted; a failed one leaves what was there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from vitops.config.problems import did_you_mean
from vitops.errors import Interrupted, UsageError
from vitops.plan.record import RunFile, StageRecord, write_atomically
from vitops.plan.request import RunRequest
from vitops.store import durable

Read = TypeVar("Read", bound=BaseModel)
Ended = Literal["running", "done", "stopped", "killed", "failed"]

_UNFINISHED = {"running", "waiting", "interrupted"}
REQUEST, LOCK, OUTCOME, RESUMED = "request.json", "supervisor.lock", "outcome.json", "resumed.json"


class _Outcome(BaseModel):
    exit_code: int
    died: bool = False


@dataclass(frozen=True)
class Run:
    """One run of the store."""

    name: str
    """Name of its folder."""
    request: RunRequest
    ended: Ended
    stages: tuple[StageRecord, ...]
    """Empty if no stage began, or ``run.json`` cannot be read."""

    @property
    def interrupted(self) -> bool:
        """Whether its request can go on where it was."""
        return self.ended in {"stopped", "killed"}

    @property
    def asked(self) -> RunRequest:
        """The request without what belongs to this run and this place alone."""
        return self.request.model_copy(update={"root": Path(), "home": None, "run_id": None})

    @property
    def stage(self) -> str | None:
        """The stage it was in."""
        return next((one.name for one in self.stages if one.status in _UNFINISHED), None)


@contextmanager
def begun(folder: Path, request: RunRequest) -> Iterator[None]:
    """Supervise the run in ``folder`` for the block: hold its lock, and note what was asked for."""
    with durable.locked(folder / LOCK):
        write_atomically(folder / REQUEST, request.model_dump(mode="json"))
        yield


def supervised(folder: Path) -> bool:
    """Whether a living process supervises the run in ``folder``."""
    return durable.held(folder / LOCK)


def supervisor_gone(folder: Path) -> bool:
    """Whether the run in ``folder`` had a supervisor, and has it no more."""
    return (folder / LOCK).exists() and not supervised(folder)


def illegible(runs: Path) -> list[Path]:
    """The requests below ``runs`` that cannot be read: whatever became of their runs, nothing can go on with them."""
    return [file for file in sorted(runs.glob(f"*/{REQUEST}")) if _read(RunRequest, file) is None]


def interrupted(runs: Path) -> list[Run]:
    """The runs below ``runs`` that can go on, oldest first."""
    latest: dict[str, Run] = {}
    for run in _runs(runs):
        request = run.asked.model_copy(update={"allow_environment_change": False}).model_dump_json()
        if run.ended != "failed" or request not in latest:
            latest[request] = run
    return [run for run in latest.values() if run.interrupted and not (runs / run.name / RESUMED).exists()]


def find(runs: Path, name: str) -> Run:
    """The interrupted run of that name. Raises UsageError for one that is not there or has nothing to go on with."""
    known = {run.name: run for run in _runs(runs)}
    if runs / name / REQUEST in illegible(runs):
        raise UsageError(
            f"run {name}: {runs / name / REQUEST} cannot be read; type the run's command once more instead"
        )
    if name not in known:
        near = did_you_mean(name, [run.name for run in known.values() if run.interrupted])
        raise UsageError(f"no run '{name}'{near}; `vitops resume` lists the interrupted ones")
    if not known[name].interrupted:
        raise UsageError(f"run {name} is {known[name].ended}, not interrupted; `vitops resume` lists those that are")
    return known[name]


def settle(runs: Path, name: str) -> None:
    """Note that another run did what was left of this one."""
    write_atomically(runs / name / RESUMED, {})


def _runs(runs: Path) -> Iterator[Run]:
    for file in sorted(runs.glob(f"*/{REQUEST}")):
        request = _read(RunRequest, file)
        if request is not None:
            record = _read(RunFile, file.with_name("run.json")) or RunFile()
            yield Run(file.parent.name, request, _ended(file.parent), record.stages)


def _ended(folder: Path) -> Ended:
    outcome = _read(_Outcome, folder / OUTCOME)
    if outcome is None:
        return "running" if supervised(folder) else "stopped" if (folder / "stop").exists() else "killed"
    if outcome.died:
        return "killed"
    codes: dict[int, Ended] = {0: "done", Interrupted.exit_code: "stopped"}
    return codes.get(outcome.exit_code, "failed")


def _read(model: type[Read], file: Path) -> Read | None:
    """The record in ``file``; None if there is none or it cannot be read."""
    try:
        return model.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
