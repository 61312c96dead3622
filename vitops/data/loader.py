"""Reading samples: tar shards through an offset table and mmap, in an order that is a pure function of the position.

Laws: every byte handed out was checked: a member's SHA-256 at every read, the list of members against the digest that
the split's own manifest vouches for. A shard is not hashed as a whole (``verify`` does that), so the time to the first
batch does not grow with the shards. ``TrainStream.micro_batch`` is a pure function of (seed, epoch, step, micro-batch):
there is no iterator to save, and seeking costs nothing.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vitops.config.training import Preprocessing, Recipe
from vitops.data.keyed import seeded
from vitops.data.kinds import Decoded, Labels, Sample, kind
from vitops.data.order import position_to_sample
from vitops.data.table import unhex
from vitops.errors import VerificationError, VitopsError
from vitops.store import manifest
from vitops.store.manifest import FileEntry

CACHE_BYTES = 256 * 2**20
"""Decoded images kept in memory by one reader: small datasets are decoded once."""
_COLUMNS = ["slot", "shard", "offset", "size", "sha256"]


class _Table(NamedTuple):
    """One subset: where each of its members lies, in index order."""

    slots: Labels
    labels: Labels
    shards: pa.ChunkedArray
    offsets: Labels
    sizes: Labels
    digests: npt.NDArray[np.uint8]
    """SHA-256 of each member, (N, 32)."""


class SplitReader:
    """The samples of one split, by subset and index. Subsets are opened on first use; pickling drops maps and cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._shards = self.folder.parent.parent / "shards"
        described = _json(self.folder / "split.json")
        self.task: str = described["task"]
        self.classes: list[str] = list(described["classes"])
        self.train_counts: list[int] = list(described["train_counts"])
        self.kind = kind(self.task)
        self._members: dict[str, str] = described["members"]
        self._listed = {"split": _listed(self.folder), "shards": _listed(self._shards)}
        _check_file(self.folder, "split.json", self._listed["split"])
        self._forget()

    def size(self, subset: str) -> int:
        """Number of samples of ``train``, ``val`` or ``test``."""
        return len(self._table(subset).labels)

    def labels(self, subset: str) -> Labels:
        """Labels of a subset in index order, (N,) int64."""
        return self._table(subset).labels

    def read(self, subset: str, index: int) -> bytes:
        """The stored bytes of one member. Raises VerificationError when they are not what the split was made of."""
        table = self._table(subset)
        start, shard = int(table.offsets[index]), table.shards[index].as_py()
        data = self._map(shard)[start : start + int(table.sizes[index])].tobytes()
        if hashlib.sha256(data).digest() != table.digests[index].tobytes():
            raise VerificationError(
                f"{self._named(table, index)} is altered: its bytes do not have the SHA-256 that samples.parquet "
                "states. Restore the shard (dvc checkout --force, or run ingest again)."
            )
        return data

    def decoded(self, subset: str, index: int) -> Decoded:
        """One decoded sample, from memory when it was decoded before; never write to it."""
        slot = int(self._table(subset).slots[index])
        if slot not in self._cache:
            image = self._decode(subset, index)
            if self._cached + image.nbytes > CACHE_BYTES:
                return image
            self._cache[slot] = image
            self._cached += image.nbytes
        return self._cache[slot]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _TRANSIENT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def _forget(self) -> None:
        self._tables: dict[str, _Table] = {}
        self._maps: dict[str, npt.NDArray[np.uint8]] = {}
        self._cache: dict[int, Decoded] = {}
        self._cached = 0

    def _decode(self, subset: str, index: int) -> Decoded:
        data = self.read(subset, index)
        try:
            return self.kind.decode(data)
        except ValueError as error:
            raise VitopsError(
                f"{self._named(self._table(subset), index)} cannot be decoded: {error}. "
                "Remove or replace the file in the source and run ingest again."
            ) from error

    def _named(self, table: _Table, index: int) -> str:
        """What an error calls a sample; its key is read only then."""
        rows = _rows(self._shards / "samples.parquet", table.slots[[index]], ["slot", "key"])
        return f"sample {rows['key'][0].as_py()} in {self._shards / table.shards[index].as_py()}"

    def _map(self, shard: str) -> npt.NDArray[np.uint8]:
        if shard not in self._maps:
            _check_size(self._shards, shard, self._listed["shards"])
            self._maps[shard] = np.memmap(self._shards / shard, dtype=np.uint8, mode="r")
        return self._maps[shard]

    def _table(self, subset: str) -> _Table:
        if subset not in self._tables:
            if subset not in self._members:
                raise ValueError(f"{self.folder} has no subset {subset!r}; it has {', '.join(sorted(self._members))}")
            self._tables[subset] = self._open(subset)
        return self._tables[subset]

    def _open(self, subset: str) -> _Table:
        _check_file(self.folder, f"{subset}.parquet", self._listed["split"])
        index = _parquet(self.folder / f"{subset}.parquet", ["slot", "label"])
        slots = index["slot"].to_numpy().astype(np.int64)
        rows = _rows(self._shards / "samples.parquet", slots, _COLUMNS)
        digests = unhex(rows["sha256"])
        self._check_members(subset, digests)
        return _Table(
            slots=slots,
            labels=index["label"].to_numpy().astype(np.int64),
            shards=rows["shard"],
            offsets=rows["offset"].to_numpy().astype(np.int64),
            sizes=rows["size"].to_numpy().astype(np.int64),
            digests=np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32),  # (N, 32)
        )

    def _check_members(self, subset: str, digests: bytes) -> None:
        if hashlib.sha256(digests).hexdigest() != self._members[subset]:
            raise VerificationError(
                f"{self._shards / 'samples.parquet'} is not the table that {self.folder} was split from: the "
                f"members of {subset!r} differ. Run the split again (vitops run, or dvc repro)."
            )


_TRANSIENT = frozenset({"_tables", "_maps", "_cache", "_cached"})


def open_split(folder: Path) -> SplitReader:
    """The split in ``folder`` (``data/<dataset>/splits/<name>``); its shards lie in ``data/<dataset>/shards``.

    Raises VerificationError when a file is missing or is not what a manifest says.
    """
    return SplitReader(folder)


def order_places(step: int, m: int, *, micro_batches: int, size: int, repeats: int) -> Labels:
    """Where in the epoch's order the samples of micro-batch ``m`` of a step stand: (size,).

    Each sample comes ``repeats`` times in a row, and this stream is dealt to the micro-batches of a step in turn, so
    copies fall into different ones. Source: repeated augmentation (Hoffer et al. 2020), as DeiT deals it to processes.
    """
    first = step * micro_batches * size + m
    places: Labels = (first + micro_batches * np.arange(size)) // repeats
    return places


class TrainStream:
    """The training samples of a recipe, one micro-batch at a time.

    Which ones, ``order_places`` says. What does not fill a last step is left out of that epoch (another part of the
    data each time).
    """

    def __init__(self, reader: SplitReader, recipe: Recipe, seed: int) -> None:
        self._reader, self._seed = reader, seed
        self._micro_batches, self._size = recipe.micro_batches, recipe.micro_batch_size
        self._repeats = recipe.repeats
        self._count = reader.size("train")
        self._batch = reader.kind.train_batch(recipe, classes=len(reader.classes))
        self.steps_per_epoch = self._count // (self._micro_batches * self._size)
        """Full steps of one epoch."""
        if not self.steps_per_epoch:
            raise VitopsError(
                f"{reader.folder} has {self._count} training samples, fewer than one step of micro_batches x "
                f"micro_batch_size = {self._micro_batches} x {self._size}. Make the micro-batch smaller."
            )

    def indices(self, epoch: int, step: int, m: int) -> Labels:
        """Which training samples micro-batch ``m`` holds: (micro_batch_size,) positions in the train index."""
        places = order_places(step, m, micro_batches=self._micro_batches, size=self._size, repeats=self._repeats)
        return position_to_sample(self._seed, epoch, self._count, places)

    def micro_batch(self, epoch: int, step: int, m: int, *, mix: bool) -> Sample:
        """Micro-batch ``m`` of a step: a pure function of the seed and these numbers."""
        indices = self.indices(epoch, step, m)
        images = [self._reader.decoded("train", int(index)) for index in indices]
        with seeded(self._seed, "augmentation", epoch, step, m):
            return self._batch(images, self._reader.labels("train")[indices], mix=mix)


def eval_batches(
    reader: SplitReader,
    subset: str,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 256,
    indices: Labels | None = None,
) -> Iterator[Sample]:
    """Clean batches of a subset in index order (or of ``indices`` in theirs); the last one may be shorter."""
    chosen = np.arange(reader.size(subset)) if indices is None else indices
    batch = reader.kind.eval_batch(preprocessing)
    for start in range(0, len(chosen), batch_size):
        part = chosen[start : start + batch_size]
        yield batch([reader.decoded(subset, int(index)) for index in part], reader.labels(subset)[part])


def _listed(folder: Path) -> dict[str, FileEntry]:
    return {entry.path: entry for entry in manifest.read(folder)}


def _json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise VerificationError(f"{path} cannot be read: {error}. Run the data stages again.") from error
    return value


def _check_file(folder: Path, name: str, listed: dict[str, FileEntry]) -> None:
    path = folder / name
    if name not in listed:
        raise VerificationError(f"{path} is not listed in {folder / manifest.NAME}. Run the data stages again.")
    if sentence := manifest.difference(path, listed[name]):
        raise VerificationError(f"{path}: {sentence} Restore it (dvc checkout --force) or run the data stages again.")


def _check_size(folder: Path, name: str, listed: dict[str, FileEntry]) -> None:
    """A shard is there and whole, as far as its length tells; its members are hashed one by one."""
    path = folder / name
    size = path.stat().st_size if path.is_file() else 0
    if name not in listed or size != listed[name].size:
        _check_file(folder, name, listed)


def _parquet(path: Path, columns: list[str]) -> pa.Table:
    """The columns of one file, read in this thread: ``pyarrow.parquet.read_table`` would first start a data set."""
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns, use_threads=False).select(columns)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise VerificationError(f"{path} cannot be read as the table it should be: {error}") from error


def _rows(path: Path, slots: Labels, columns: list[str]) -> pa.Table:
    """The rows of the sample table at ``slots``: it is in slot order, with a gap where a file left its source."""
    table = _parquet(path, columns)
    known = table["slot"].to_numpy().astype(np.int64)
    places = np.searchsorted(known, slots)
    if slots.size and not (places.max() < known.size and np.array_equal(known[places], slots)):
        raise VerificationError(f"{path} does not hold every slot that the split asks for, in slot order")
    return table.take(pa.array(places))
