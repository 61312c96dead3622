"""The processes of a run, on disk, so that whoever is left can end them.

Which process is the recorded one, ``vitops/store/process.py`` decides.
"""

import json
import time
from pathlib import Path

import psutil

from vitops.plan.record import write_atomically
from vitops.store.process import alive, find


def end_leftovers(runs: Path) -> int:
    """End what earlier, killed runs left behind; return how many processes that were."""
    return sum(end_family(file) for file in sorted(runs.glob("*/processes.json")))


def end_family(file: Path) -> int:
    """End the processes that ``file`` lists, unless their supervisor lives; return how many that were."""
    supervisor, descendants = _read_family(file)
    if supervisor is not None and alive(supervisor):
        return 0
    ended = _end([process for process in descendants if alive(process)])
    file.unlink(missing_ok=True)
    return ended


class Family:
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
        _end([process for process in map(find, self._seen.items()) if process is not None])
        self._file.unlink(missing_ok=True)


def _read_family(file: Path) -> tuple[psutil.Process | None, list[psutil.Process]]:
    try:
        document = json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None, []
    descendants = [process for process in map(find, document["descendants"]) if process is not None]
    return find(document["supervisor"]), descendants


def _end(processes: list[psutil.Process]) -> int:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=5)
    return len(processes)
