"""A file that is there but cannot be read: an error that names it and says what to do, never a traceback.

Laws: what the disk has lost counts as damage (``VerificationError``), so that whoever can make it again does; a file
that only needs other rights, or a machine that is short of something, is no damage and no reason to remove anything.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitops.errors import VerificationError, VitopsError

_LOST = {errno.EIO, errno.EBADMSG, errno.EUCLEAN}
"""The device, or the file system's own check sums, cannot give the bytes back."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn an OSError of the block, which only reads ``path``, into a VitopsError; a missing file passes as it is.

    Raises VerificationError where the bytes are lost.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        why = f"cannot read {path}: {error.strerror}."
        if error.errno in _LOST:
            raise VerificationError(f"{why} Check the disk; a run makes the file again, or a backup has it.") from error
        raise VitopsError(
            f"{why} Give this user the right to read it, or free what is short; then run again."
        ) from error
