"""Children that do not outlive their parent: a killed run must leave nothing behind that writes on (Linux)."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent dies; leave at once if ``parent`` is already gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def launch() -> None:
    """``python -m vitops.data.tied PARENT PROGRAM ARGUMENT...``: run a program that dies with the process ``PARENT``.

    For programs that are not ours; doing it here rather than between fork and exec is safe in a threaded parent.
    """
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    launch()
