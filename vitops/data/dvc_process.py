"""Running DVC: always a child process in a session of its own that cannot outlive us.

What it guards against (all seen): a killed DVC leaves its stage running and writing; a second DVC on the same path
exits at once instead of waiting; a killed one leaves files half written (``dvc_state``); DVC unpickles what lies in its
state folder, which by default every user may write.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vitops.data import dvc_state
from vitops.errors import Interrupted, UsageError, VitopsError
from vitops.store import durable

REPORT = "VITOPS_STAGE_REPORT"
"""Environment variable of a file to which every data stage appends how it ended, one JSON line each."""
PATIENCE = 600.0
"""Seconds to wait while another DVC process holds a path."""
_BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
_KEPT = 40
_ASKED = {signal.SIGTERM, signal.SIGINT}

Say = Callable[[str], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """How one DVC command ended."""

    code: int
    stdout: str
    """Only where it was asked for; otherwise lines go to the callback as they come."""
    tail: str
    """The last lines of what it said."""
    stages: tuple[dict[str, Any], ...]
    """What the data stages it ran said about themselves: ``stage``, ``exit_code``, ``message``."""


def status(root: Path, stages: Sequence[str]) -> dict[str, list[Any]]:
    """What ``dvc status`` finds changed, by stage instance. Raises VitopsError."""
    done = _patiently(root, ["status", "--json", *stages], say=None)
    if done.code:
        raise VitopsError(f"dvc status failed; mend what it says and run the same command again: {_reason(done)}")
    verdict: dict[str, list[Any]] = json.loads(done.stdout or "{}")
    return verdict


def reproduce(root: Path, stages: Sequence[str], *, say: Say, force: bool = False) -> tuple[str, ...]:
    """Execute each of these stage instances that DVC finds changed, in order; return the names of those that ran.

    ``force`` executes them all. Nothing is taken from DVC's run cache. Raises the failed stage's own error.
    """
    options = ["--single-item", "--no-run-cache", *(["--force"] if force else [])]
    with dvc_state.writing(root):
        done = _patiently(root, ["repro", *options, *stages], say=say)
    for failed in (one for one in done.stages if one["exit_code"]):
        raise _error(failed["exit_code"])(failed["message"])
    what = f"dvc repro {' '.join(stages)}"
    if -done.code in _ASKED:
        raise Interrupted(f"{what} was asked to end; run the same command again")
    if done.code:
        raise VitopsError(f"{what} failed; mend what it says and run the same command again: {_reason(done)}")
    return tuple(one["stage"] for one in done.stages)


def restore(root: Path, paths: Sequence[str], *, say: Say) -> None:
    """Bring outputs back from DVC's cache, or from its remote. Raises VitopsError if neither has them."""
    for verb, listener in (("checkout", log.debug), ("pull", say)):
        done = _patiently(root, [verb, "--force", *paths], say=listener)
        if not done.code and all((root / path).exists() for path in paths):
            return
    raise VitopsError(
        f"DVC cannot restore {', '.join(paths)}; reach the remote that holds them, or make them again with "
        f"`dvc repro`: {_reason(done)}"
    )


def _error(code: int) -> type[VitopsError]:
    return next((kind for kind in (UsageError, Interrupted) if kind.exit_code == code), VitopsError)


def _reason(done: Finished) -> str:
    errors = [line.removeprefix("ERROR: ") for line in done.tail.splitlines() if line.startswith("ERROR: ")]
    return " ".join(errors) or " ".join(done.tail.split()) or f"exit code {done.code}"


def _patiently(root: Path, arguments: Sequence[str], *, say: Say | None) -> Finished:
    """Run DVC; while another one holds the lock, wait and try again. What a killed one left is put right before."""
    dvc_state.mend(root)
    deadline, pause = time.monotonic() + PATIENCE, 0.2
    while True:
        done = _run(root, arguments, say=say)
        busy = done.code and any(sign in done.tail for sign in _BUSY)
        if not busy or done.stages or time.monotonic() > deadline:
            return done
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def _run(root: Path, arguments: Sequence[str], *, say: Say | None) -> Finished:
    """Run DVC once. With ``say`` its lines go there; without, stdout is collected."""
    tail: deque[str] = deque(maxlen=_KEPT)
    with tempfile.TemporaryDirectory(prefix="vitops-dvc-") as folder:
        report = Path(folder, "stages.jsonl")
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = subprocess.Popen(
                [sys.executable, "-m", "vitops.data.tied", str(os.getpid()), sys.executable, "-m", "dvc", *arguments],
                cwd=root,
                env=_environment(root, report),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if say else out,
                stderr=subprocess.STDOUT if say else err,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            try:
                for line in child.stdout or ():
                    tail.append(line.rstrip())
                    if say:
                        say(line.rstrip())
                code = child.wait()
            finally:
                _end(child)
            tail.extend(_lines(err))
            return Finished(code, "\n".join(_lines(out)), "\n".join(tail), _reported(report))


def _end(child: "subprocess.Popen[str]") -> None:
    """Kill whatever of the child's session is left; a finished child's session is empty."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.stdout:
        child.stdout.close()


def _lines(stream: IO[str]) -> list[str]:
    stream.seek(0)
    return stream.read().splitlines()


def _reported(report: Path) -> tuple[dict[str, Any], ...]:
    if not report.exists():
        return ()
    return tuple(json.loads(line) for line in report.read_text(encoding="utf-8").splitlines())


def _environment(root: Path, report: Path) -> dict[str, str]:
    state = durable.make_folder(root / ".dvc" / "tmp" / "state")
    state.chmod(0o700)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(state), "PATH": path, REPORT: str(report)}
