"""Folders for unfinished work, one per process, that disappear with it.

Laws: ``tmp/<name>`` belongs to whoever holds the flock of ``tmp/<name>.lock``; when nobody does, its process is dead,
and anyone may remove it. No process id is asked for, so reused ids and other containers on the same store do no harm.
On a disk that takes no change, what is left waits for the next process: nothing in ``tmp/`` is ever read.
"""

import os
import threading
import weakref
from contextlib import suppress
from pathlib import Path

from vitops.errors import VitopsError
from vitops.store import durable


class Scratch:
    """Removes what dead processes left below ``tmp``; makes this process's own folder when it is first asked for."""

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp
        self._folder: Path | None = None
        self._guard = threading.Lock()
        for lock in tmp.glob("*.lock"):
            _remove_if_dead(lock)

    def folder(self) -> Path:
        """This process's folder. Raises VitopsError when it cannot be made."""
        with self._guard:
            if self._folder is None:
                self._folder = self._make()
            return self._folder

    def _make(self) -> Path:
        folder = self._tmp / f"{os.getpid()}-{os.urandom(4).hex()}"
        lock = folder.with_name(f"{folder.name}.lock")
        held = durable.acquire(lock, wait=True)
        assert held is not None
        durable.make_folder(folder)
        weakref.finalize(self, _give_up, os.getpid(), held, folder, lock)
        return folder


def _give_up(owner: int, held: int, folder: Path, lock: Path) -> None:
    """Remove the folder in the process that made it; a forked child must not."""
    if os.getpid() == owner:
        _remove(folder, lock)
    durable.release(held)


def _remove_if_dead(lock: Path) -> None:
    with suppress(VitopsError):
        held = durable.acquire(lock, wait=False)
        if held is not None:
            _remove(lock.with_suffix(""), lock)
            durable.release(held)


def _remove(folder: Path, lock: Path) -> None:
    with suppress(VitopsError, OSError):  # a worker that outlived the process may still write there: then later
        durable.remove(folder)
        durable.remove(lock)
