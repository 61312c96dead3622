"""The local copies of a shared store's bytes, kept below a size limit.

Laws: what was used longest ago goes first (blobs and materialized artifacts alike); an artifact that a living process
materialized stays as long as that process, whatever the limit; nothing is removed while any process of this home takes
bytes in or out. Removing costs a download and never an answer.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vitops.store import durable


@dataclass(frozen=True, order=True)
class _Copy:
    used: int
    path: Path
    size: int


class ReadCache:
    """The files of ``blobs`` and the folders of ``artifacts``, ``limit`` bytes in all; locks lie in ``locks``."""

    def __init__(self, blobs: Path, artifacts: Path, *, locks: Path, limit: int) -> None:
        self._blobs, self._artifacts, self._locks, self._limit = blobs, artifacts, locks, limit
        self._held: dict[Path, int] = {}
        weakref.finalize(self, _release, self._held)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Nothing is removed during the block; what exceeds the limit is afterwards."""
        held = durable.acquire(self._busy_lock(), wait=True, shared=True)
        assert held is not None
        try:
            yield
        finally:
            durable.release(held)
        self._shrink()

    def use(self, artifact: Path) -> None:
        """Keep the artifact's folder as long as this process lives. Only while ``busy``."""
        durable.mark_used(artifact)
        if artifact not in self._held:
            held = durable.acquire(self._use_lock(artifact), wait=True, shared=True)
            assert held is not None
            self._held[artifact] = held

    def _shrink(self) -> None:
        excess = sum(copy.size for copy in self._copies()) - self._limit
        if excess <= 0 or (held := durable.acquire(self._busy_lock(), wait=False)) is None:
            return
        try:
            for copy in sorted(self._copies()):
                if excess <= 0:
                    break
                if self._remove(copy.path):
                    excess -= copy.size
        finally:
            durable.release(held)

    def _remove(self, path: Path) -> bool:
        """Remove the copy unless it is an artifact in use; whether it is gone."""
        if path.parent != self._artifacts:
            durable.remove(path)
            return True
        lock = self._use_lock(path)
        held = durable.acquire(lock, wait=False)
        if held is None:
            return False
        try:
            durable.remove(path)
            durable.remove(lock)
        finally:
            durable.release(held)
        return True

    def _copies(self) -> Iterator[_Copy]:
        for path in [*self._blobs.glob("*/*"), *self._artifacts.iterdir()]:
            with suppress(FileNotFoundError):  # another process removed it meanwhile
                yield _Copy(path.stat().st_mtime_ns, path, _size(path))

    def _busy_lock(self) -> Path:
        return self._locks / "read-cache"

    def _use_lock(self, artifact: Path) -> Path:
        return self._locks / f"used-{artifact.name}"


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _release(held: dict[Path, int]) -> None:
    for descriptor in held.values():
        durable.release(descriptor)
