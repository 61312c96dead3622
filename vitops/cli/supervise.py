"""Run a flow as a child process and answer for everything it starts.

The light parent imports no Prefect, Ray or torch. It asks the child to stop by a file (the training loop checkpoints
and ends), escalates to signals after a grace period, keeps a list of all descendants on disk, and ends those that
outlive their run, in this process or, after a SIGKILL, at the start of the next one. A process counts as the recorded
one only if its creation time agrees, so a reused pid is never hit.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from vitops.plan.record import read_record, write_atomically
from vitops.plan.request import RunRequest

GRACE_SECONDS = 30.0
POLL_SECONDS = 0.2
INTERRUPTED = 75


def supervise(request: RunRequest, folder: Path, *, tick: Callable[[], None]) -> tuple[int, str | None]:
    """Run the flow of ``request``, its files in ``folder``; return the documented exit code and an error paragraph."""
    write_atomically(folder / "request.json", request.model_dump(mode="json"))
    stop = _StopOnSignal(folder / "stop")
    with stop, (folder / "log.txt").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "flows", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(request.root),
            start_new_session=True,
        )
        family = _Family(folder / "processes.json", child.pid)
        try:
            while child.poll() is None:
                family.note()
                tick()
                stop.escalate(child)
                time.sleep(POLL_SECONDS)
            tick()
        finally:
            family.end()
    return _result(folder, child.returncode, stopped=stop.since is not None)


def end_leftovers(runs: Path) -> int:
    """End what earlier, killed runs left behind; return how many processes that were."""
    ended = 0
    for file in sorted(runs.glob("*/processes.json")):
        supervisor, descendants = _read_family(file)
        if supervisor is not None and _alive(supervisor):
            continue
        ended += _end([process for process in descendants if _alive(process)])
        file.unlink(missing_ok=True)
    return ended


class _StopOnSignal:
    """SIGTERM and SIGINT become a file that the flow looks for; what ignores it for long is ended."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.since: float | None = None
        self._saved: dict[signal.Signals, Any] = {}
        self._asked = False

    def __enter__(self) -> "_StopOnSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._saved[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._saved.items():
            signal.signal(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.since is None:
            self.since = time.monotonic()
            self._file.touch()

    def escalate(self, child: "subprocess.Popen[bytes]") -> None:
        """After the grace period ask by signal, and five seconds later do not ask."""
        if self.since is None:
            return
        waited = time.monotonic() - self.since
        if waited > GRACE_SECONDS + 5:
            child.kill()
        elif waited > GRACE_SECONDS and not self._asked:
            self._asked = True
            child.terminate()


class _Family:
    """The child's descendants, on disk with their creation times."""

    def __init__(self, file: Path, child: int) -> None:
        self._file = file
        self._root = psutil.Process(child)
        self._seen: dict[int, float] = {}
        self._looked = 0.0

    def note(self) -> None:
        """Add descendants that appeared since the last look, at most once a second."""
        if time.monotonic() - self._looked < 1.0 and self._seen:
            return
        self._looked = time.monotonic()
        try:
            family = [self._root, *self._root.children(recursive=True)]
            fresh = {process.pid: process.create_time() for process in family if process.pid not in self._seen}
        except psutil.NoSuchProcess:
            return
        if fresh:
            self._seen |= fresh
            me = psutil.Process()
            document = {"supervisor": [me.pid, me.create_time()], "descendants": sorted(self._seen.items())}
            write_atomically(self._file, document)

    def end(self) -> None:
        """End descendants that outlived the child, then forget them."""
        _end([process for process in map(_find, self._seen.items()) if process is not None])
        self._file.unlink(missing_ok=True)


def _read_family(file: Path) -> tuple[psutil.Process | None, list[psutil.Process]]:
    try:
        document = json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None, []
    descendants = [process for process in map(_find, document["descendants"]) if process is not None]
    return _find(document["supervisor"]), descendants


def _find(identity: "tuple[int, float] | list[Any]") -> psutil.Process | None:
    pid, created = identity
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - created) < 0.05 else None
    except psutil.NoSuchProcess:
        return None


def _alive(process: psutil.Process) -> bool:
    return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE


def _end(processes: list[psutil.Process]) -> int:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=5)
    return len(processes)


def _environment(root: Path) -> dict[str, str]:
    """The child's environment: Prefect at home in the project and silent, unless the user said otherwise."""
    defaults = {
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # the first start migrates a database
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    return defaults | os.environ


def _result(folder: Path, returncode: int, *, stopped: bool) -> tuple[int, str | None]:
    outcome = read_record(folder / "outcome.json")
    if outcome is not None:
        return int(outcome["exit_code"]), outcome["error"]
    if stopped:
        return INTERRUPTED, "interrupted; run the same command again to resume"
    reason = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return 1, f"the flow process ended without a result ({reason}); its output is in {folder / 'log.txt'}"
