"""The one place where files of store, ledger and checkpoints are created, changed, synced, renamed, deleted or locked.

Laws: a file appears under its final name only when all its bytes are on disk; after a call returns, a power cut does
not undo it; a failed or killed call leaves the target as it was, and at worst a file ``.<name>.<random>.tmp`` aside.
Everything rests on the primitives at the end of this file, so that a fault test can number and fail each operation.
A failure the user can do something about (full, read-only or broken disk) is a ``VitopsError`` that names the path.
"""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from vitops.errors import VitopsError
from vitops.store.readable import readable

CHUNK = 1 << 20
_EARLY = 1 << 25
"""Bytes after which the disk is asked to begin, so that it works while the rest is still being made or hashed."""
_WAYS_OUT = {
    errno.ENOSPC: "no space is left on its file system; free some, or put the store elsewhere with VITOPS_HOME",
    errno.EDQUOT: "your disk quota is used up; free some space, or put the store elsewhere with VITOPS_HOME",
    errno.EFBIG: "the file would exceed the largest allowed size (see ulimit -f); raise that limit",
    errno.EROFS: "its file system is read-only; make it writable, or put the store elsewhere with VITOPS_HOME",
    errno.EACCES: "permission is denied; give this user write access, or put the store elsewhere with VITOPS_HOME",
    errno.EPERM: "the operation is not permitted there; put the store on another file system with VITOPS_HOME",
    errno.EIO: "the disk reports an input/output error; check the disk, then put the store elsewhere with VITOPS_HOME",
    errno.EXDEV: "the store's folders lie on different file systems; keep the whole store on one",
    errno.EOPNOTSUPP: "its file system has no hard links or locks; put the store on another one with VITOPS_HOME",
    errno.ENOLCK: "its file system has no locks left; put the store on another one with VITOPS_HOME",
}


@contextmanager
def actionable(path: Path) -> Iterator[None]:
    """Turn an OSError of the block that has a known way out into a VitopsError that names the path; let others pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _WAYS_OUT:
            raise
        raise VitopsError(
            f"cannot write {path}: {_WAYS_OUT[error.errno]}. What was published before is unchanged; then run again."
        ) from error


def write_bytes(path: Path, data: bytes, *, aside: Path | None = None, sync: bool = True) -> None:
    """Create or replace the file. ``aside``: folder for the unfinished file (default: beside the target).

    ``sync=False`` is for what can be made again (a cache): whole or absent for readers, but not safe from a power cut.
    """
    with actionable(path), _aside(path, aside) as unfinished:
        _fill(unfinished, (data,), mode=None, sync=sync)
        _rename(unfinished, path)
        if sync:
            _sync_folder(path.parent)


def write_hashed(path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Create or replace the file from its pieces; return its size and SHA-256, found while it was written.

    The pieces are hashed in a second thread: hashing costs no time where the disk is slower, or the disk none where
    hashing is. They must not change before this returns.
    """
    hasher, size = hashlib.sha256(), 0
    with actionable(path), _aside(path, None) as unfinished, ThreadPoolExecutor(1) as hashing:

        def passed() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                hashing.submit(hasher.update, chunk)
                size += len(chunk)
                yield cast(bytes, chunk)  # any buffer of single bytes can be written

        _fill(unfinished, passed(), mode=None, sync=True)
        digest = hashing.submit(hasher.hexdigest).result()
        _rename(unfinished, path)
        _sync_folder(path.parent)
    return size, digest


def create_only(path: Path, data: bytes, *, aside: Path | None = None) -> bool:
    """Create the file read-only with all its bytes at once; False, and nothing changed, when the name is taken."""
    with actionable(path), _aside(path, aside) as unfinished:
        _fill(unfinished, (data,), mode=0o444, sync=True)
        try:
            _link(unfinished, path)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True


def copy(
    source: Path, target: Path, *, expected: str, aside: Path | None = None, mode: int | None = None, sync: bool = True
) -> str:
    """Copy a file while hashing it; return the SHA-256 of the bytes read.

    The target is created or replaced only if that equals ``expected``. ``sync``: as in ``write_bytes``. Raises
    VerificationError when the disk cannot give the source's bytes back.
    """
    return pour(_pieces(source), target, expected=expected, aside=aside, mode=mode, sync=sync)


def pour(
    pieces: Iterable[bytes],
    target: Path,
    *,
    expected: str,
    aside: Path | None = None,
    mode: int | None = None,
    sync: bool = True,
) -> str:
    """Like ``copy`` for bytes that come from elsewhere; what their iterator raises passes through."""
    hasher = hashlib.sha256()
    with actionable(target), _aside(target, aside) as unfinished:
        _fill(unfinished, _hashed(pieces, hasher.update), mode=mode, sync=sync)
        if hasher.hexdigest() == expected:
            _rename(unfinished, target)
            if sync:
                _sync_folder(target.parent)
    return hasher.hexdigest()


def make_folder(path: Path) -> Path:
    """Create the folder and its parents where missing; return it."""
    if path.is_dir():
        return path
    with actionable(path):
        make_folder(path.parent)
        _mkdir(path)
        _sync_folder(path.parent)
    return path


def rename_dir(source: Path, target: Path) -> bool:
    """Move a finished folder to its final name; False, and nothing changed, when a filled folder has that name.

    The files inside must have been written durably before (``write_bytes``).
    """
    with actionable(target):
        _sync_folder(source)
        try:
            _rename(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        _sync_folder(target.parent)
        return True


def sync_tree(folder: Path) -> None:
    """Force every file and folder below (and the folder itself) to disk."""
    with actionable(folder):
        for place, _, names in os.walk(folder):
            for name in names:
                _sync_file(Path(place, name))
            _sync_folder(Path(place))


def remove(path: Path) -> None:
    """Delete a file or a whole folder; nothing happens when it is not there."""
    with actionable(path):
        if path.is_dir() and not path.is_symlink():
            _remove_tree(path)
        else:
            _unlink(path)
        if path.parent.is_dir():
            _sync_folder(path.parent)


@contextmanager
def locked(path: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the exclusive lock of a lock file, waiting for it; the kernel frees it when the process dies.

    ``waiting``, if given, is called between tries, five a second, and may raise.
    """
    while (descriptor := acquire(path, wait=waiting is None)) is None:
        assert waiting is not None
        waiting()
        time.sleep(0.2)
    try:
        yield
    finally:
        release(descriptor)


def acquire(path: Path, *, wait: bool, shared: bool = False) -> int | None:
    """Descriptor that holds the lock of the file, created if missing; None when it is held elsewhere and not ``wait``.

    Several may hold it ``shared``, or one alone. A lock file that was deleted while we waited is no lock any more:
    another is then taken.
    """
    while True:
        with actionable(path):
            descriptor = _open_lock(path)
        try:
            with actionable(path):
                _flock(descriptor, wait=wait, shared=shared)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if _names(path, descriptor):
            return descriptor
        os.close(descriptor)


def release(descriptor: int) -> None:
    """Give back a lock of ``acquire``."""
    os.close(descriptor)


def held(path: Path) -> bool:
    """Whether a living process, this one too, holds the lock of the file; nothing is written to find out."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        _flock(descriptor, wait=False, shared=True)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _aside(target: Path, folder: Path | None) -> Iterator[Path]:
    unfinished = (folder or target.parent) / f".{target.name}.{os.urandom(6).hex()}.tmp"
    try:
        yield unfinished
    finally:
        _unlink(unfinished)


def _fill(path: Path, chunks: Iterable[bytes], *, mode: int | None, sync: bool) -> None:
    descriptor = _create(path)
    begun = written = 0
    try:
        for chunk in chunks:
            _write(descriptor, chunk)
            written += len(chunk)
            if sync and written - begun >= _EARLY:
                os.posix_fadvise(descriptor, begun, written - begun, os.POSIX_FADV_DONTNEED)  # a hint: begin now
                begun = written
        if mode is not None:
            _chmod(descriptor, mode)
        if sync:
            _sync(descriptor)
    finally:
        os.close(descriptor)


def _pieces(source: Path) -> Iterator[bytes]:
    with readable(source), source.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _hashed(pieces: Iterable[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece


def _remove_tree(path: Path) -> None:
    for place, folders, names in os.walk(path, topdown=False):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in [*names, *links]:
            _unlink(Path(place, name))
        _rmdir(Path(place))


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def mark_used(path: Path) -> None:
    """Set the file's or folder's modification time to now; of caches, whose bytes carry their own digest."""
    with actionable(path):
        _utime(path)


# The primitives: every change of the disk is one of these calls.


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _chmod(descriptor: int, mode: int) -> None:
    os.fchmod(descriptor, mode)


def _utime(path: Path) -> None:
    os.utime(path)


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _rename(source: Path, target: Path) -> None:
    source.replace(target)


def _link(source: Path, target: Path) -> None:
    target.hardlink_to(source)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _mkdir(path: Path) -> None:
    path.mkdir(exist_ok=True)


def _rmdir(path: Path) -> None:
    path.rmdir()


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _flock(descriptor: int, *, wait: bool, shared: bool) -> None:
    fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
