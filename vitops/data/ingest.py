"""``arrive`` and ``ingest``: from a source to numbered samples in deterministic shards with a table over them.

Laws: ``arrive`` alone reads its previous output; ``ingest`` is a function of (source, arrivals, configuration); an
image that does not decode keeps its row, and the gates decide about it.
"""

import hashlib
import importlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vitops.config.datasets import ArchiveSource, ArraysSource, FolderSource
from vitops.data import arrivals, outputs, shards, table
from vitops.data.arrivals import Arrivals, Shard, Slot
from vitops.data.configured import IngestConfig
from vitops.data.profile import Profile, Profiler
from vitops.data.shards import Member
from vitops.data.sources.items import Item, Reader, class_order
from vitops.errors import VitopsError
from vitops.store import canonical

AHEAD = 4
"""Shards that are written before the profiles of the first of them are waited for."""
MAX_CLASSES = 65_535
Row = dict[str, Any]
Rows = dict[str, list[Any]]


def arrive(root: Path, config: IngestConfig, previous: Arrivals) -> Arrivals:
    """The arrivals after taking in what the source holds now."""
    with open_source(config.source, root) as reader:
        return arrivals.arrive(previous, _slots(reader.items()), shard_size=config.shard_size)


def ingest(root: Path, name: str, config: IngestConfig, *, known: Arrivals, out: Path) -> None:
    """Write shards, offset indexes, ``samples.parquet``, ``dataset.json`` and the manifest into ``out``.

    ``known`` must be the source's own arrivals. Raises VitopsError if the source has changed since.
    """
    with open_source(config.source, root) as reader:
        items = reader.items()
        if arrivals.arrive(known, _slots(items), shard_size=config.shard_size) != known:
            raise VitopsError(
                f"the source of {name} is not what data/{name}/arrivals.json lists: run `dvc repro arrive@{name}` first"
            )
        classes = _classes(items)
        with outputs.sealed(out) as folder:
            rows = _write_shards(folder, known, items)
            labels = {one: label for label, one in enumerate(classes)}
            rows["label"] = [labels[one] for one in rows["class"]]
            rows["licence"] = [config.source.licence] * len(items)
            table.write(folder / "samples.parquet", rows, table.SAMPLES)
            canonical.write_json(folder / "dataset.json", _facts(name, config, classes, known))


def open_source(source: ArraysSource | ArchiveSource | FolderSource, root: Path) -> Reader:
    """The reader that the source's ``kind`` selects."""
    module, _, attribute = source.implementation.partition(":")
    reader: Reader = getattr(importlib.import_module(module), attribute)(source, root)
    return reader


def _slots(items: Sequence[Item]) -> list[Slot]:
    return [Slot(one.key, hashlib.sha256(one.read()).hexdigest()) for one in items]


def _classes(items: Sequence[Item]) -> list[str]:
    names = class_order(one.class_name for one in items)
    if len(names) > MAX_CLASSES:
        raise VitopsError(f"the source has {len(names)} class folders, more than {MAX_CLASSES}")
    return names


def _write_shards(folder: Path, known: Arrivals, items: Sequence[Item]) -> Rows:
    """Write every shard while its images are profiled; the rows of all samples in slot order."""
    by_key = {one.key: one for one in items}
    rows: Rows = {field.name: [] for field in table.SAMPLES}
    waiting: deque[Callable[[], list[Row]]] = deque()
    with Profiler(len(items)) as profiler:
        for shard in arrivals.shards(known):
            waiting.append(_write_shard(folder, shard, by_key=by_key, profiler=profiler))
            if len(waiting) > AHEAD:
                _extend(rows, waiting.popleft()())
        while waiting:
            _extend(rows, waiting.popleft()())
    return rows


def _write_shard(folder: Path, shard: Shard, *, by_key: dict[str, Item], profiler: Profiler) -> Callable[[], list[Row]]:
    """Write one tar; what is returned waits for its profiles and gives its rows."""
    live = [(shard.first + place, slot) for place, slot in enumerate(shard.slots) if slot is not None]
    members = [_member(number, slot, by_key[slot.key]) for number, slot in live]
    profiles = profiler.submit([member.image for member in members])
    offsets = shards.write(folder / shard.name, members)
    rows = [
        _row(member, shard=shard.name, offset=offset, sha256=slot.sha256)
        for member, offset, (_, slot) in zip(members, offsets, live, strict=True)
    ]
    return lambda: [_profiled(row, measured) for row, measured in zip(rows, profiles(), strict=True)]


def _member(number: int, slot: Slot, item: Item) -> Member:
    data = item.read()
    if hashlib.sha256(data).hexdigest() != slot.sha256:
        raise VitopsError(f"{item.path} changed while it was read: run again when nothing writes to the source")
    facts = {"class": item.class_name, "path": item.path, "subset": item.subset}
    return Member(number, slot.key, item.extension, data, facts)


def _row(member: Member, *, shard: str, offset: int, sha256: str) -> Row:
    return {
        "slot": member.slot,
        "key": member.key,
        "shard": shard,
        "offset": offset,
        "size": len(member.image),
        "sha256": sha256,
        "class": member.facts["class"],
        "subset": member.facts["subset"],
        "source": member.facts["path"],
    }


def _profiled(row: Row, measured: Profile) -> Row:
    return {**row, **vars(measured), "decodable": not measured.error}


def _extend(rows: Rows, more: list[Row]) -> None:
    for row in more:
        for column, value in row.items():
            rows[column].append(value)


def _facts(name: str, config: IngestConfig, classes: list[str], known: Arrivals) -> dict[str, Any]:
    return {
        "arrivals": len(known),
        "classes": classes,
        "dataset": name,
        "licence": config.source.licence,
        "samples": arrivals.live(known),
        "task": config.task,
    }
