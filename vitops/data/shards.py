"""WebDataset tars whose bytes are a function of their samples, each with an offset index beside it.

Laws: USTAR headers with fixed times, owners and modes, members in slot order (image, then its JSON); a tombstone leaves
no member; ``<shard>.idx.npy`` holds (slot, offset, size) of each image, (members, 3) little-endian int64.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Member:
    """A sample as it goes into a shard."""

    slot: int
    key: str
    extension: str
    image: bytes
    facts: dict[str, str]
    """What the JSON member says; class names, never label numbers, which move when a class arrives."""


def write(path: Path, members: Sequence[Member]) -> list[int]:
    """Write the tar and its index; return each image's offset. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        offsets = [_add(tar, member) for member in members]
    rows = [(member.slot, offset, len(member.image)) for member, offset in zip(members, offsets, strict=True)]
    np.save(index_path(path), np.array(rows, dtype="<i8").reshape(-1, 3), allow_pickle=False)
    return offsets


def index_path(shard: Path) -> Path:
    """Where the offset index of a shard lies: ``000000.tar`` -> ``000000.idx.npy``."""
    return shard.with_suffix(".idx.npy")


def _add(tar: tarfile.TarFile, member: Member) -> int:
    _append(tar, f"{member.key}.{member.extension}", member.image)
    offset = tar.offset - -(-len(member.image) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    facts = json.dumps(member.facts, sort_keys=True, ensure_ascii=False).encode()
    _append(tar, f"{member.key}.json", facts)
    return offset


def _append(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))
