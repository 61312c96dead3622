"""Number every operation that the store, the ledger and the checkpoints do on the disk, and let one of them go wrong.

Laws: what is counted are the primitives of ``vitops.store.durable``, one counter a thread (``main`` and
``checkpoint``, which writes beside the training): within a thread their order is the same in every run, between the two
it is not. Counting begins with ``begin``. Exactly one operation goes wrong: the process is killed ``before`` it,
``after`` it, or with half of its bytes written (``torn``); it raises an OSError (``error``); or the power is cut, of
which ``power_cut`` says what it takes. After the operation a cut may take all bytes that were not yet synced and leave
the names (``lost``), or take all bytes and names but that one (``early``); before a sync (``cut``), and after a
thread's last operation (``end``), it takes all.
"""

import errno
import os
import signal
import threading
from collections import Counter
from dataclasses import dataclass

from power_cut import Unsynced

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
MIDST = {"_write": ["torn"], "_rename": ["lost", "early"], "_link": ["lost", "early"], "_sync": ["cut"]}
"""Primitive -> what can go wrong at it beside a kill before or after it."""
CUTS = ("lost", "early", "cut", "end")
"""The kinds at which the power is cut."""


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
        self._unsynced = Unsynced()
        self._guard = threading.RLock()

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
            if name == "_flock":  # it may wait for the other thread; and it changes no byte and no name
                return self._done(name, real, args, kwargs)
            with self._guard:
                return self._done(name, real, args, kwargs)

        return operation

    def _done(self, name, real, args, kwargs):
        struck = self._strikes(name)
        if struck:
            self._before(name, args)
        change = self._unsynced.begun(name, args)
        value = real(*args, **kwargs)
        self._unsynced.ended(name, args, change)
        if struck:
            self._after(change)
        return value

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
        if self._fault.kind == "cut":
            self._cut(None)
        if self._fault.kind in ("before", "cut"):
            die()

    def _after(self, change):
        if self._fault.kind == "lost":
            self._unsynced.lose_bytes()
        elif self._fault.kind in ("early", "end"):
            self._cut(change if self._fault.kind == "early" else None)
        die()

    def _cut(self, early):
        with self._guard:
            self._unsynced.lose_bytes()
            self._unsynced.lose_names(but=early)


def faults(done):
    """Every kill that the recorded operations tell apart: one before each, one after a thread's last, and in the midst.

    A kill after operation k and one before k + 1 of the same thread find the same files, as no operation lies between
    and a SIGKILL leaves what was written; so the first stands for both. A write can also be torn. At a rename or link,
    what makes a file appear, it shows whether bytes and names had been synced before. What a power cut leaves changes
    with a sync alone; so the one before the next sync, when most is outstanding, stands for all since the last.
    """
    last = Counter(stream for stream, _ in done)
    counts = Counter()
    for stream, name in done:
        counts[stream] += 1
        more = MIDST.get(name, []) + (["after", "end"] if counts[stream] == last[stream] else [])
        yield from (Fault(stream, counts[stream], kind) for kind in ["before", *more])


def die():
    """End this process as a power switch would."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()
