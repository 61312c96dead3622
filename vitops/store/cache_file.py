"""A JSON document that may be lost at any time: written at once, sealed with its own digest, rebuilt when damaged.

Laws: ``load`` returns exactly what some ``save`` wrote, or None; neither ever fails a command, because a cache costs
time and never an answer. That is why ``save`` alone, of all writers, gives up quietly on a full or read-only disk.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from vitops.errors import VitopsError
from vitops.store import durable


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
    """Replace the document; False when the disk does not take it."""
    body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    try:
        durable.make_folder(path.parent)
        durable.write_bytes(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body, sync=False)
    except VitopsError:
        return False
    return True
