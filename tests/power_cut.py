"""What a power cut takes from a disk: the bytes and the names that were not yet synced.

Laws: a file's bytes are safe once the file was synced; a name that was created, linked, renamed or removed is as it was
before until the folder it stands in was synced. A rename between two folders is one change, settled by the folder it
leads to. Of two folders either may have come to the disk first: no order is assumed between them. So what a cut leaves
changes with a sync and with nothing else.
"""

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

OF_NAMES = ("_create", "_open_lock", "_mkdir", "_link", "_rename", "_unlink", "_rmdir")
"""The primitives that may change what stands in a folder."""


@dataclass(frozen=True)
class Held:
    """A file or folder that was removed or replaced: its mode, and the file's bytes."""

    mode: int
    data: bytes

    def put_back(self, path):
        """Make it again, unless the folder it stood in is gone as well."""
        if not path.parent.is_dir():
            return
        if stat.S_ISDIR(self.mode):
            path.mkdir()
        else:
            path.write_bytes(self.data)
        path.chmod(stat.S_IMODE(self.mode))


@dataclass
class Change:
    """One change of a name; ``source`` is what a rename took, ``before`` what stood under the name."""

    path: Path
    source: Path | None
    before: Held | None


class Unsynced:
    """Follows the primitives of ``vitops.store.durable``; knows what a power cut would take now."""

    def __init__(self):
        self._bytes: set[Path] = set()
        self._names: list[Change] = []

    def begun(self, name, args):
        """The change of a name that this call is about to make; None for a call that makes none."""
        if name not in OF_NAMES:
            return None
        path = _place(args[1] if name in ("_link", "_rename") else args[0])
        return Change(path, _place(args[0]) if name == "_rename" else None, self._held(path))

    def ended(self, name, args, change):
        """Note what the call has done; ``change`` is what ``begun`` gave."""
        if name == "_write":
            self._bytes.add(_open_file(args[0]))
        elif name == "_sync":
            self._settle(_open_file(args[0]))
        elif change and change.source:
            self._moved(change.source, change.path)
            self._names.append(change)
        elif change and bool(change.before) != os.path.lexists(change.path):
            self._names.append(change)

    def lose_bytes(self):
        """Cut every file that was not synced to zero length."""
        for path in filter(Path.is_file, self._bytes):
            os.truncate(path, 0)

    def lose_names(self, *, but=None):
        """Undo every change of a name whose folder was not synced, ``but`` the one that came to the disk early."""
        lost = [change for change in self._names if change is not but]
        while lost:
            self._undo(lost.pop())

    def _held(self, path):
        """What a cut would leave there; None if nothing stands there."""
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Held(mode, path.read_bytes() if stat.S_ISREG(mode) and path not in self._bytes else b"")

    def _settle(self, path):
        self._bytes.discard(path)
        self._names = [change for change in self._names if change.path.parent != path]

    def _undo(self, change):
        if change.source and os.path.lexists(change.path) and change.source.parent.is_dir():
            change.path.rename(change.source)
            self._moved(change.path, change.source)
        else:
            _delete(change.path)
        if change.before:
            change.before.put_back(change.path)

    def _moved(self, source, target):
        """What was moved, and what stands below it, is known by the new name."""
        self._bytes = {_renamed(path, source, target) for path in self._bytes - {target}}
        for change in self._names:
            change.path = _inside(change.path, source, target)
            change.source = change.source and _inside(change.source, source, target)


def _inside(path, source, target):
    return target / path.relative_to(source) if source in path.parents else path


def _renamed(path, source, target):
    return target if path == source else _inside(path, source, target)


def _delete(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _place(path):
    return path.parent.resolve() / path.name


def _open_file(descriptor):
    return Path(f"/proc/self/fd/{descriptor}").readlink()
