"""Arrivals: which samples a dataset version consists of, in the order in which they came.

Laws: a sample keeps its slot number for ever; new samples append an arrival and move nothing; a sample that left its
source leaves a tombstone (null); replaying the same arrivals gives the same shards, however they grew.
Shard boundaries follow from an arrival's length and the shard size alone, so only changing that size moves them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitops.errors import VitopsError
from vitops.store import canonical, durable

_SLOT = re.compile(r"[0-9a-f]{20} [0-9a-f]{64}")


@dataclass(frozen=True)
class Slot:
    """One live sample: its key and the SHA-256 of its stored bytes."""

    key: str
    sha256: str


@dataclass(frozen=True)
class Arrival:
    """Samples that came together, and how many slots each of their shards holds."""

    slots: tuple[Slot | None, ...]
    shards: tuple[int, ...]


@dataclass(frozen=True)
class Shard:
    """One tar to write: ``name`` is relative to the shards folder, ``first`` its first slot number."""

    name: str
    first: int
    slots: tuple[Slot | None, ...]


Arrivals = tuple[Arrival, ...]


def arrive(previous: Arrivals, samples: Sequence[Slot], *, shard_size: int) -> Arrivals:
    """The previous arrivals with what left the source turned into tombstones, and one more for what is new in it."""
    present = set(samples)
    kept = [
        replace(arrival, slots=tuple(slot if slot in present else None for slot in arrival.slots))
        for arrival in previous
    ]
    known = {slot for arrival in kept for slot in arrival.slots}
    new = tuple(slot for slot in samples if slot not in known)
    everything = [*kept, Arrival(new, ())] if new else kept
    return tuple(replace(arrival, shards=_boundaries(len(arrival.slots), shard_size)) for arrival in everything)


def shards(arrivals: Arrivals) -> Iterator[Shard]:
    """Every shard in slot order; the folder is the arrival's number."""
    first = 0
    for number, arrival in enumerate(arrivals):
        start = 0
        for index, size in enumerate(arrival.shards):
            yield Shard(f"{number:04d}/{index:06d}.tar", first + start, arrival.slots[start : start + size])
            start += size
        first += len(arrival.slots)


def live(arrivals: Arrivals) -> int:
    """Number of samples that are not tombstones."""
    return sum(slot is not None for arrival in arrivals for slot in arrival.slots)


def write(path: Path, arrivals: Arrivals) -> None:
    """Create or replace ``arrivals.json`` at once, as the next run reads it: a slot is ``"<key> <sha256>"`` or null."""
    value = [
        {"shards": list(one.shards), "slots": [slot and f"{slot.key} {slot.sha256}" for slot in one.slots]}
        for one in arrivals
    ]
    durable.write_bytes(path, canonical.pretty({"arrivals": value}))


def read(path: Path) -> Arrivals:
    """The arrivals in a file; none if it does not exist. Raises VitopsError for a damaged file."""
    try:
        return tuple(_arrival(value) for value in json.loads(path.read_bytes())["arrivals"])
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise VitopsError(
            f"{path.name} of {path.parent.name} is damaged ({error}): restore it with `dvc checkout {path}`, "
            "or remove it to number all samples anew"
        ) from error


def _arrival(value: dict[str, list[str | None]]) -> Arrival:
    slots = tuple(text if text is None else _slot(text) for text in value["slots"])
    sizes = tuple(int(str(size)) for size in value["shards"])
    if sum(sizes) != len(slots) or min(sizes, default=0) < 1:
        raise ValueError(f"shards of {sum(sizes)} slots for {len(slots)} samples")
    return Arrival(slots, sizes)


def _slot(text: str) -> Slot:
    if not _SLOT.fullmatch(text):
        raise ValueError(f"{text[:100]!r} is no slot")
    return Slot(*text.split())


def _boundaries(length: int, shard_size: int) -> tuple[int, ...]:
    full, rest = divmod(length, shard_size)
    return (shard_size,) * full + ((rest,) if rest else ())
