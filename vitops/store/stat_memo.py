"""Remembers what was computed from files (digests, syntax trees, verdicts) until a stat record says they changed.

Laws: a remembered value is returned only while size, mtime_ns, ctime_ns and inode of every file are those recorded when
it was computed; a lost or damaged memo only costs time.

The racy case: a file rewritten in place, to the same size, within the clock tick of the recorded ctime keeps its
record. (ctime alone matters: every write moves it and no call can set it, while mtime can be set to anything.) Linux
stamps files with a clock that steps every 1 to 10 ms; some file systems store whole or even seconds only, which shows
as a ctime without a fraction. So a value is remembered only if its computation *began* more than 20 ms after the ctime
(2 s where the ctime has no fraction): any later write then gets another ctime. A ctime ahead of our clock is never
trusted. Not covered: a network file server whose clock lags behind ours by more than that margin, and a writer that
changes pages through a mapping it holds without syncing them; readers hash what they use, ``verify`` hashes everything.
"""

import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vitops.store import cache_file

Stat = list[int]
T = TypeVar("T")
SECOND = 1_000_000_000
FINE_TICK = 20_000_000
COARSE_TICK = 2 * SECOND


class StatMemo:
    """Values by (namespace, name) in ``<folder>/<namespace>.json``: plain JSON, so tuples come back as lists.

    What changed is written by ``save``, or by itself when the memo or the process ends; entries that other processes
    saved before are kept, except those of a file that is gone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, dict[str, Any]] = {}
        self._changed: dict[str, dict[str, Any]] = {}
        weakref.finalize(self, _save, folder, self._changed)

    def value(self, namespace: str, path: Path, compute: Callable[[Path], T]) -> T:
        """What ``compute(path)`` returns for the file as it is now. Raises what ``compute`` raises."""
        return self.group(namespace, str(path), [path], lambda: compute(path))

    def group(self, namespace: str, name: str, paths: Sequence[Path], compute: Callable[[], T]) -> T:
        """Like ``value`` for something computed from several files (a missing one counts as a state of its own)."""
        before, began = [_stat(path) for path in paths], time.time_ns()
        entry = self._entries(namespace).get(name)
        if entry is not None and entry["stat"] == before:
            known: T = entry["value"]
            return known
        value = compute()
        if before == [_stat(path) for path in paths] and all(_settled(stat, began) for stat in before):
            self._set(namespace, name, {"stat": before, "value": value})
        elif entry is not None:
            self._set(namespace, name, None)
        return value

    def forget(self, namespace: str, name: str | Path) -> None:
        """Compute this value again next time, whatever its stat record."""
        self._set(namespace, str(name), None)

    def save(self) -> None:
        """Write what changed since the last save."""
        _save(self.folder, self._changed)

    def _entries(self, namespace: str) -> dict[str, Any]:
        if namespace not in self._loaded:
            self._loaded[namespace] = cache_file.load(_path(self.folder, namespace)) or {}
        return self._loaded[namespace]

    def _set(self, namespace: str, name: str, entry: dict[str, Any] | None) -> None:
        _put(self._entries(namespace), name, entry)
        self._changed.setdefault(namespace, {})[name] = entry


def _save(folder: Path, changed: dict[str, dict[str, Any]]) -> None:
    while changed and folder.parent.is_dir():
        namespace, changes = changed.popitem()
        entries = cache_file.load(_path(folder, namespace)) or {}
        for name, entry in list(changes.items()):
            _put(entries, name, entry)
        cache_file.save(
            _path(folder, namespace), {name: entry for name, entry in entries.items() if _alive(name, entry)}
        )


def _path(folder: Path, namespace: str) -> Path:
    return folder / f"{namespace}.json"


def _put(entries: dict[str, Any], name: str, entry: dict[str, Any] | None) -> None:
    if entry is None:
        entries.pop(name, None)
    else:
        entries[name] = entry


def _alive(name: str, entry: dict[str, Any]) -> bool:
    """Whether the file is still there; an entry of several files has a name of its own, which tells nothing."""
    return len(entry["stat"]) > 1 or Path(name).exists()


def _stat(path: Path) -> Stat | None:
    try:
        record = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [record.st_size, record.st_mtime_ns, record.st_ctime_ns, record.st_ino]


def _settled(stat: Stat | None, now: int) -> bool:
    """Whether a write from ``now`` on would move the ctime. A missing file that appears has a record then."""
    if stat is None:
        return True
    ctime = stat[2]
    return now - ctime > (FINE_TICK if ctime % SECOND else COARSE_TICK)
