"""A file on a bad sector: it is there with its size and its times, and reading it fails."""

import builtins
import errno
import io
import os
from contextlib import contextmanager


@contextmanager
def bad_sector(path, code=errno.EIO):
    """Every read of the file within the block raises the OSError of that number."""
    opened, bad = io.open, os.path.realpath(path)

    class Bad(io.FileIO):
        def read(self, *_):
            raise OSError(code, os.strerror(code), bad)

        readinto = readall = read

    def opening(file, mode="r", *rest, **named):
        if not isinstance(file, int) and os.path.realpath(file) == bad and "r" in mode:
            return io.BufferedReader(Bad(bad))
        return opened(file, mode, *rest, **named)

    io.open = builtins.open = opening
    try:
        yield
    finally:
        io.open = builtins.open = opened
