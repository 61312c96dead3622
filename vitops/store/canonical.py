"""One byte form for every JSON value, so that a digest of a value means something.

Laws: equal values give equal bytes on every machine (keys sorted, UTF-8, floats as their shortest ``repr``); a value
that JSON cannot hold (NaN, infinities, lone surrogates) is refused, never written in some other form.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from vitops.errors import VitopsError
from vitops.store import durable
from vitops.store.readable import readable


def dumps(value: Any) -> bytes:
    """Canonical JSON without whitespace. Raises ValueError for NaN and infinities."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def pretty(value: Any) -> bytes:
    """Canonical JSON for files people read: one value a line, newline at the end. Raises ValueError as ``dumps``."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def digest(value: Any) -> str:
    """SHA-256 of ``dumps(value)``, 64 hex digits."""
    return hashlib.sha256(dumps(value)).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write ``pretty(value)``; VitopsError naming the file for a value that JSON cannot hold and for a full disk.

    Not durable by itself: publishing an artifact, or writing a folder's manifest, makes its files so.
    """
    try:
        data = pretty(value)
    except ValueError as error:
        raise VitopsError(
            f"cannot write {path.name}: it holds a value that JSON cannot express ({error}). "
            "A training that diverged gives NaN: lower its learning rate."
        ) from error
    with durable.actionable(path):
        path.write_bytes(data)


def sha256_file(path: Path) -> str:
    """SHA-256 of the file's bytes, 64 hex digits, read in pieces. Raises VerificationError where they are lost."""
    with readable(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
