"""Number every operation that the store, the ledger and the checkpoints do on the disk, and let one of them go wrong.

Laws: what is counted are the primitives of ``vitops.store.durable``, one counter a thread (``main`` and
``checkpoint``, which writes beside the training): within a thread their order is the same in every run, between the two
it is not. Counting begins with ``begin``. Exactly one operation goes wrong, in one of five ways: the process is killed
``before`` it, ``after`` it, with half of its bytes written (``torn``), after it with every file that was not yet synced
cut to zero length, as a power cut leaves it (``lost``), or it raises an OSError (``error``).
"""

import errno
import os
import signal
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vitops.store import durable

PRIMITIVES = (
    "_create",
    "_write",
    "_chmod",
    "_utime",
    "_sync",
    "_rename",
    "_link",
    "_unlink",
    "_mkdir",
    "_rmdir",
    "_open_lock",
    "_flock",
)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)


@dataclass(frozen=True)
class Fault:
    """What goes wrong at operation ``number`` (from 1) of a thread; ``error`` is the errno of that kind."""

    stream: str
    number: int
    kind: str
    error: int = 0


class Operations:
    """Counts the operations of the block into ``done``, as (thread, primitive), and brings the fault about."""

    def __init__(self, fault=None):
        self.done: list[tuple[str, str]] = []
        self._fault, self._counts, self._counting = fault, Counter(), False
        self._unsynced: set[str] = set()
        self._guard = threading.Lock()

    def __enter__(self):
        self._saved = {name: getattr(durable, name) for name in PRIMITIVES}
        for name, real in self._saved.items():
            setattr(durable, name, self._counted(name, real))
        return self

    def __exit__(self, *_):
        for name, real in self._saved.items():
            setattr(durable, name, real)

    def begin(self):
        """Count from here on."""
        self._counting = True

    def _counted(self, name, real):
        def operation(*args, **kwargs):
            struck = self._strikes(name)
            if struck:
                self._before(name, args)
            value = real(*args, **kwargs)
            self._note(name, args)
            if struck:
                self._after()
            return value

        return operation

    def _strikes(self, name):
        if not self._counting:
            return False
        stream = "checkpoint" if threading.current_thread().name.startswith("checkpoint") else "main"
        with self._guard:
            self.done.append((stream, name))
            self._counts[stream] += 1
            at = self._counts[stream]
        return self._fault is not None and (stream, at) == (self._fault.stream, self._fault.number)

    def _before(self, name, args):
        if self._fault.kind == "error":
            raise OSError(self._fault.error, os.strerror(self._fault.error))
        if self._fault.kind == "torn" and name == "_write":
            os.write(args[0], args[1][: len(args[1]) // 2])
            die()
        if self._fault.kind == "before":
            die()

    def _after(self):
        if self._fault.kind == "lost":
            with self._guard:
                for path in filter(os.path.exists, self._unsynced):
                    os.truncate(path, 0)
        die()

    def _note(self, name, args):
        """Keep track of the files whose bytes are not on the disk for sure."""
        with self._guard:
            if name == "_write":
                self._unsynced.add(_open_file(args[0]))
            elif name == "_sync":
                self._unsynced.discard(_open_file(args[0]))
            elif name == "_rename":
                self._moved(str(args[0]), str(args[1]))
            elif name == "_unlink":
                self._unsynced.discard(str(args[0]))

    def _moved(self, source, target):
        inside = f"{source}/"
        for path in [path for path in self._unsynced if path == source or path.startswith(inside)]:
            self._unsynced.remove(path)
            self._unsynced.add(target + path[len(source) :])


def faults(done):
    """Every kill that the recorded operations tell apart: one before each, one after a thread's last, and in the midst.

    A kill after operation k and one before k + 1 of the same thread find the same files, as no operation lies between
    and a SIGKILL leaves what was written; so the first stands for both. A write can also be torn; at a rename or link,
    what makes a file appear, it shows whether the bytes had been synced before.
    """
    last = Counter(stream for stream, _ in done)
    counts = Counter()
    for stream, name in done:
        counts[stream] += 1
        more = {"_write": ["torn"], "_rename": ["lost"], "_link": ["lost"]}.get(name, [])
        more += ["after"] if counts[stream] == last[stream] else []
        yield from (Fault(stream, counts[stream], kind) for kind in ["before", *more])


def die():
    """End this process as a power switch would."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def _open_file(descriptor):
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())
