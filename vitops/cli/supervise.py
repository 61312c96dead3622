"""Run a flow as a child process and answer for everything it starts.

The light parent imports no Prefect, Ray or torch. It asks the child to stop by a file (the training loop checkpoints
and ends), escalates to signals after a grace period, keeps a list of all descendants on disk, and ends those that
outlive their run: itself, or a small watcher if it is killed, or the start of the next run if both were.

Law: 30 s after SIGTERM, which is what container runtimes grant, everything is over, whether a stage listens or not.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from vitops.cli.family import Family, mark
from vitops.plan.record import read_record, write_atomically
from vitops.plan.request import RunRequest
from vitops.plan.runs import begun

GRACE_SECONDS = 22.0
"""Until a flow that was asked to stop is asked by a signal: a training gives up its step after 15 s, its workers and
Prefect take some seconds to go."""
KILL_SECONDS = 24.0
"""Until it is not asked any more; ``family.END_SECONDS`` and the command's own last words come after that."""
POLL_SECONDS = 0.2
INTERRUPTED = 75


def supervise(request: RunRequest, folder: Path, *, tick: Callable[[], None]) -> tuple[int, str | None]:
    """Run the flow of ``request``, its files in ``folder``; return the documented exit code and an error paragraph."""
    stop = _StopOnSignal(folder / "stop")
    with begun(folder, request), stop, (folder / "log.txt").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "flows", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(request.root) | mark(folder),
            start_new_session=True,
        )
        family = Family(folder / "processes.json", child.pid)
        watcher = _watcher(folder / "processes.json")
        try:
            while child.poll() is None:
                family.note()
                tick()
                stop.escalate(child)
                time.sleep(POLL_SECONDS)
            tick()
        finally:
            family.end()
            watcher.communicate()
    return _result(folder, child.returncode, stopped=stop.since is not None)


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
        """After the grace period ask by signal, and soon after that do not ask."""
        if self.since is None:
            return
        if not (self._file.parent / "run.json").exists():
            child.kill()  # no stage has begun: there is no work to save
        waited = time.monotonic() - self.since
        if waited > KILL_SECONDS:
            child.kill()
        elif waited > GRACE_SECONDS and not self._asked:
            self._asked = True
            child.terminate()


def _watcher(file: Path) -> "subprocess.Popen[bytes]":
    """A process that outlives us just long enough to end the run's processes, should we be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "vitops.cli.watch", str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


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
    error = f"the flow process ended without a result ({reason}); its output is in {folder / 'log.txt'}"
    write_atomically(
        folder / "outcome.json", {"exit_code": 1, "error": error, "died": True}
    )  # a disk that takes none is named
    return 1, error
