"""The processes of a run, so that whoever is left can end them.

Laws: a process belongs to a run if the run's file lists it, or if it carries the run's folder in its environment, which
all inherit that the flow starts: so one that was started a moment before a kill is known too (the list has those that
overwrite their environment, as Ray's workers do). A run whose supervisor lives is left alone. Which process is the
recorded one, ``vitops/store/process.py`` decides.
"""

import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel, ValidationError

from vitops.plan.record import write_atomically
from vitops.plan.runs import supervised
from vitops.store.process import alive, find, start_of

MARK = "VITOPS_RUN_FOLDER"
"""Environment variable of a run's processes: its folder."""
END_SECONDS = 2.0
"""How long killed processes are waited for."""
log = logging.getLogger(__name__)


class _Listed(BaseModel):
    descendants: list[tuple[int, str]] = []


def mark(folder: Path) -> dict[str, str]:
    """What the environment of the run's processes must have."""
    return {MARK: str(folder.resolve())}


def end_leftovers(runs: Path) -> None:
    """End what earlier, killed runs left behind."""
    for file in sorted(runs.glob("*/processes.json")):
        end_family(file)


def end_family(file: Path) -> None:
    """End the processes of the run whose list ``file`` is, unless its supervisor lives."""
    if not supervised(file.parent):
        _end(_listed(file), file.parent)
        file.unlink(missing_ok=True)


class Family:
    """The child's descendants, on disk with their starts."""

    def __init__(self, file: Path, child: int) -> None:
        self._file = file
        self._child = child
        self._seen: dict[int, str] = {}
        self._looked = 0.0

    def note(self) -> None:
        """Add descendants that appeared since the last look, at most once a second."""
        if time.monotonic() - self._looked < 1.0 and self._seen:
            return
        self._looked = time.monotonic()
        try:
            root = psutil.Process(self._child)  # made anew: it would compare its children with the clock of its making
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        starts = {process.pid: start_of(process.pid) for process in family if process.pid not in self._seen}
        if fresh := {pid: started for pid, started in starts.items() if started is not None}:
            self._seen |= fresh
            write_atomically(self._file, {"descendants": sorted(self._seen.items())})

    def end(self) -> None:
        """End descendants that outlived the child, then forget them."""
        _end(self._seen.items(), self._file.parent)
        self._file.unlink(missing_ok=True)


def _listed(file: Path) -> list[tuple[int, str]]:
    try:
        return _Listed.model_validate_json(file.read_bytes()).descendants
    except (OSError, ValidationError):
        return []


def _end(listed: Iterable[tuple[int, str]], folder: Path) -> None:
    """Kill until none is left: one may start another while it is looked for. What lives on is named."""
    known, deadline = [process for process in map(find, listed) if process is not None], time.monotonic() + END_SECONDS
    while (members := [process for process in [*known, *_marked(folder)] if alive(process)]) and _left(deadline):
        for process in members:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process.kill()
        psutil.wait_procs(members, timeout=_left(deadline))
    for process in members:
        log.warning("process %d of the run in %s still lives: end it (kill -9 %d)", process.pid, folder, process.pid)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _marked(folder: Path) -> list[psutil.Process]:
    name = mark(folder)[MARK]
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _mark_of(process) == name]


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):  # gone, or not ours to look at
        return None
