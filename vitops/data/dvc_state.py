"""What a killed DVC may leave half written, and how it is put right before the next one starts.

DVC writes two files in place: ``.dvc/tmp/rwlock`` (who uses which path), without which it starts no more, and
``dvc.lock``. Laws: what is no JSON, seen while holding the lock under which DVC writes it, is a dead process's and is
removed. ``dvc.lock`` is kept aside while a DVC of ours may write it; one that is found there was being written when its
process died, and comes back unless what is in its place is whole and has every stage that it has. Nothing else in these
files is ever touched: what a user broke is DVC's to report.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from vitops.store import durable

_FOLDER = Path(".dvc", "tmp")
_IN_USE, _IN_USE_GUARD = _FOLDER / "rwlock", _FOLDER / "rwlock.lock"
_LOCK, _ASIDE = Path("dvc.lock"), _FOLDER / "dvc.lock.before"
_OURS = _FOLDER / "vitops.lock"


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Run a DVC that may write ``dvc.lock``, one at a time; after an error the next start looks at what it left."""
    durable.make_folder(root / _FOLDER)
    with durable.locked(root / _OURS):
        _mend(root)
        durable.write_bytes(root / _ASIDE, _bytes(root / _LOCK))
        yield
        durable.remove(root / _ASIDE)


def mend(root: Path) -> None:
    """Put right what a killed DVC left, unless another process of ours has one running."""
    durable.make_folder(root / _FOLDER)
    if (held := durable.acquire(root / _OURS, wait=False)) is not None:
        try:
            _mend(root)
        finally:
            durable.release(held)


def _mend(root: Path) -> None:
    with durable.locked(root / _IN_USE_GUARD):
        if (root / _IN_USE).exists() and not _is_json(_bytes(root / _IN_USE)):
            durable.remove(root / _IN_USE)
    if not (root / _ASIDE).exists():
        return
    before, found = _bytes(root / _ASIDE), _bytes(root / _LOCK)
    if not _follows(found, before):
        _put_back(before, root / _LOCK)
    durable.remove(root / _ASIDE)


def _follows(found: bytes, before: bytes) -> bool:
    """Whether what is there now is whole, as far as can be seen, and lost nothing."""
    stages = _stages(found)
    return found.endswith(b"\n") and stages is not None and stages >= (_stages(before) or set())


def _put_back(data: bytes, path: Path) -> None:
    """Nothing means that there was no file."""
    if data:
        durable.write_bytes(path, data)
    else:
        durable.remove(path)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _stages(data: bytes) -> set[str] | None:
    """Names of the stages in a ``dvc.lock``; None if it is none."""
    try:
        found: Any = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    return set(found.get("stages") or {}) if isinstance(found, dict) else None
