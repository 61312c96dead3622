"""The runs that a store remembers: what each was asked for, and how it ended.

Laws: a run is *running* while the process that supervises it lives; without that it ended as ``outcome.json`` says
(0 done, 75 stopped with its work saved, else failed), or was *killed* if there is none or it says that the flow process
died. Of several runs of one request the latest that did not fail alone speaks for it: what it went on with is no longer
interrupted; a failed one leaves what was there.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from vitops.config.problems import did_you_mean
from vitops.errors import Interrupted, UsageError
from vitops.plan.record import read_record, write_atomically
from vitops.plan.request import RunRequest
from vitops.store.process import Process

JSON = dict[str, Any]
Ended = Literal["running", "done", "stopped", "killed", "failed"]

_UNFINISHED = {"running", "waiting", "interrupted"}
REQUEST, SUPERVISOR, OUTCOME, RESUMED = "request.json", "supervisor.json", "outcome.json", "resumed.json"


@dataclass(frozen=True)
class Run:
    """One run of the store."""

    name: str
    """Name of its folder."""
    request: RunRequest
    ended: Ended
    stages: tuple[JSON, ...]
    """As ``run.json`` has them; empty if no stage began."""

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
        return next((one["name"] for one in self.stages if one["status"] in _UNFINISHED), None)


def begin(folder: Path, request: RunRequest) -> None:
    """Note in the run's folder that this process supervises it, and what was asked for."""
    write_atomically(folder / SUPERVISOR, Process.own().model_dump())
    write_atomically(folder / REQUEST, request.model_dump(mode="json"))


def supervisor_gone(folder: Path) -> bool:
    """Whether the run in ``folder`` had a supervisor on this machine that is no more."""
    try:
        return Process.model_validate_json((folder / SUPERVISOR).read_bytes()).gone()
    except (OSError, ValidationError):
        return False


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
        try:
            request = RunRequest.model_validate_json(file.read_bytes())
            record = read_record(file.with_name("run.json")) or {"stages": []}
        except (OSError, ValueError):  # a record may be lost without harm; an unreadable one is lost
            continue
        yield Run(file.parent.name, request, _ended(file.parent), tuple(record["stages"]))


def _ended(folder: Path) -> Ended:
    try:
        outcome = read_record(folder / OUTCOME)
    except json.JSONDecodeError:
        outcome = None
    if outcome is None:
        there = (folder / SUPERVISOR).exists() and not supervisor_gone(folder)
        return "running" if there else "stopped" if (folder / "stop").exists() else "killed"
    if outcome.get("died"):
        return "killed"
    codes: dict[int, Ended] = {0: "done", Interrupted.exit_code: "stopped"}
    return codes.get(outcome["exit_code"], "failed")
