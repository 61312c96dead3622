"""A JSON document that may be lost at any time: written at once, sealed with its own digest, rebuilt when damaged.

Laws: ``load`` returns exactly what some ``save`` wrote, or None; neither ever fails a command, because a cache costs
time and never an answer. That is why ``save`` alone, of all writers, gives up quietly on a full or read-only disk.
Who saves holds the lock ``.<name>.lock`` beside the document, so that it may remove what a killed one left unfinished.
Nobody waits for it long: a finalizer may save a document in the midst of a save of the same one, in the same thread.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from vitops.errors import VitopsError
from vitops.store import durable

_PATIENCE, _PAUSE = 1.0, 0.005
"""Seconds that a save waits for another one, and between two looks."""


def load(path: Path) -> dict[str, Any] | None:
    """The document, or None when it is missing, unreadable or damaged."""
    try:
        seal, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if seal.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
        return None
    document: dict[str, Any] = json.loads(body)
    return document


def save(path: Path, document: dict[str, Any]) -> bool:
    """Replace the document; False when the disk does not take it, or another process saves it for very long."""
    body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    try:
        durable.make_folder(path.parent)
        held = _lock(path)
        if held is None:
            return False
        try:
            for unfinished in path.parent.glob(f".{path.name}.*.tmp"):
                durable.remove(unfinished)
            durable.write_bytes(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body, sync=False)
        finally:
            durable.release(held)
    except VitopsError:
        return False
    return True


def _lock(path: Path) -> int | None:
    deadline = time.monotonic() + _PATIENCE
    lock = path.with_name(f".{path.name}.lock")
    while (held := durable.acquire(lock, wait=False)) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return held
