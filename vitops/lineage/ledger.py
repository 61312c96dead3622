"""The ledger: one file per receipt, numbered without gaps, each naming the bytes of the one before.

Laws: an entry is created once and never replaced (creating is the compare-and-swap: who comes second takes the next
number); ``previous`` is the SHA-256 of the previous entry's file, 64 zeros for the first; ``digest`` is that of the
entry's other fields, so a damaged entry is known by itself. A damaged entry is never believed: here it is as if it were
not there, and ``verify`` names it. The index in ``cache/`` only points; what it points to is read and checked. Of a
shared store's ledger (``vitops.lineage.shared_ledger``) the files are in its bucket; the laws are the same.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitops.lineage.receipts import Receipt, receipt
from vitops.store import cache_file, canonical, durable
from vitops.store.prefixes import resolve
from vitops.store.scratch import Scratch

START = "0" * 64
FORMAT = 1
JSON = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One intact file of the ledger; ``sha256`` is that of the file, which the next entry names."""

    sequence: int
    previous: str
    receipt: Receipt
    sha256: str


class Ledger:
    """The ledger of the store in ``home``. Reading creates nothing but the index in ``cache/``."""

    def __init__(self, home: Path) -> None:
        self.folder = home.absolute() / "ledger"
        self._cache = home.absolute() / "cache/ledger.json"
        self._tmp = home.absolute() / "tmp"
        self._index: JSON | None = None
        self._guard = threading.Lock()

    def append(
        self,
        statement: JSON,
        *,
        since: int | None = None,
        first_decides: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> int:
        """Write the statement as the next entry and return its number.

        Of racing runs one writes: where an entry from number ``since`` on says the same (key and digest), that one's
        number is returned instead; if the ``first_decides``, where one has the same key, whatever its digest.
        ``check`` is called before every try and raises when this run may not write any more. Raises ValueError when it
        is no receipt, VitopsError when the disk or the bucket does not take it.
        """
        durable.make_folder(self.folder)
        aside = Scratch(durable.make_folder(self._tmp))
        while True:
            sequence = self._next()
            made = receipt(sequence, statement)
            if since is not None and (rival := self._rival(made, range(since, sequence), first_decides)) is not None:
                return rival.sequence
            previous = sha256(self._bytes(sequence - 1)) if sequence else START
            data = _render(sequence, previous, statement)
            check()
            if self._create(sequence, data, aside=aside):
                return sequence

    def end(self) -> int:
        """The number that the next entry will have."""
        end: int = self._refreshed()["next"]
        return end

    def path(self, sequence: int) -> Path:
        """The file of that number."""
        return self.folder / f"{sequence:08d}.json"

    def place(self, sequence: int) -> Path | str:
        """Where the entry of that number is, for messages."""
        return self.path(sequence)

    def sequences(self) -> list[int]:
        """The numbers that have a file, sorted."""
        if not self.folder.is_dir():
            return []
        names = [path.stem for path in self.folder.iterdir() if path.suffix == ".json"]
        return sorted(int(name) for name in names if name.isdecimal() and len(name) == 8)

    def strays(self) -> Iterator[Path | str]:
        """What lies among the entries and is none."""
        known = {self.path(sequence) for sequence in self.sequences()}
        return (path for path in sorted(self.folder.rglob("*")) if not path.is_dir() and path not in known)

    def entries(self) -> Iterator[Receipt]:
        """Every intact receipt, oldest first."""
        for sequence in self.sequences():
            if (found := self._receipt(sequence)) is not None:
                yield found

    def by_key(self, key: str, *, digest: str | None = None) -> Receipt | None:
        """The latest intact receipt of that stage key; with ``digest``, of those that say so."""
        return self._latest("keys", key, said=digest)

    def by_digest(self, digest: str, *, before: int | None = None) -> Receipt | None:
        """The latest intact receipt about that artifact, of those numbered below ``before``."""
        return self._latest("digests", digest, before=before)

    def find(self, prefix: str) -> str:
        """The digest of the one artifact with a receipt that begins so (at least 6 hex digits). Raises UsageError."""
        return resolve(prefix, self._refreshed()["digests"], what="artifact with a receipt")

    def read(self, sequence: int) -> Entry:
        """One entry. Raises ValueError saying how it is damaged, OSError when it cannot be read."""
        return self.read_original(sequence)

    def read_original(self, sequence: int) -> Entry:
        """Like ``read``, from where it was written, although there may be copies: for checks."""
        return entry(sequence, self._bytes(sequence))

    def _bytes(self, sequence: int) -> bytes:
        return self.path(sequence).read_bytes()

    def _create(self, sequence: int, data: bytes, *, aside: Scratch) -> bool:
        return durable.create_only(self.path(sequence), data, aside=aside.folder())

    def _receipt(self, sequence: int) -> Receipt | None:
        try:
            return self.read(sequence).receipt
        except (ValueError, OSError, RecursionError):
            return None

    def _receipts(self, sequences: list[int]) -> Iterator[Receipt | None]:
        return map(self._receipt, sequences)

    def _rival(self, made: Receipt, numbers: Iterable[int], first_decides: bool) -> Receipt | None:
        """The first of these entries that says of the same key what ``made`` says, or says anything at all."""
        said = (one for one in map(self._receipt, numbers) if one and one.key == made.key)
        return next((one for one in said if first_decides or one.digest == made.digest), None)

    def _next(self) -> int:
        return max(self.sequences(), default=-1) + 1

    def _latest(self, table: str, name: str, *, before: int | None = None, said: str | None = None) -> Receipt | None:
        for sequence in reversed(self._refreshed()[table].get(name, [])):
            if before is not None and sequence >= before:
                continue
            found = self._receipt(sequence)
            if found is None or name != (found.key if table == "keys" else found.digest):
                continue
            if said is None or found.digest == said:
                return found
        return None

    def _refreshed(self) -> JSON:
        with self._guard:
            if self._index is None:
                self._index = self._load()
            elif self._grown(self._index["next"]):
                self._extend(self._index, self.sequences())
            return self._index

    def _grown(self, number: int) -> bool:
        """Whether there is an entry of this number, the next one."""
        return self.path(number).exists()

    def _load(self) -> JSON:
        """The saved index if it belongs to this ledger, brought up to date; a new one otherwise."""
        index = cache_file.load(self._cache)
        if index is None or index.get("format") != FORMAT or index["head"] != self._head(index["next"] - 1):
            index = {"format": FORMAT, "next": 0, "head": None, "damaged": [], "keys": {}, "digests": {}}
        self._extend(index, self.sequences())
        return index

    def _extend(self, index: JSON, sequences: list[int]) -> None:
        """Index what is new, and what was damaged at the last try and may have been restored."""
        damaged = []
        new = [*index["damaged"], *(number for number in sequences if number >= index["next"])]
        for sequence, found in zip(new, self._receipts(new), strict=True):
            if found is None:
                damaged.append(sequence)
            else:
                _point(index, sequence, found)
        if damaged == index["damaged"] == new:
            return
        after = max(sequences, default=-1) + 1
        index |= {"next": after, "head": self._head(after - 1), "damaged": damaged}
        cache_file.save(self._cache, index)

    def _head(self, sequence: int) -> str | None:
        try:
            return sha256(self.path(sequence).read_bytes()) if sequence >= 0 else None
        except OSError:
            return None


def entry(sequence: int, data: bytes) -> Entry:
    """The entry whose file holds these bytes. Raises ValueError saying how it is damaged."""
    fields = json.loads(data)
    if not isinstance(fields, dict) or fields.get("sequence") != sequence:
        raise ValueError("it does not carry its own number")
    if _render(sequence, fields.get("previous"), fields.get("statement")) != data:
        raise ValueError("its bytes are not those that its digest was taken of")
    return Entry(sequence, fields["previous"], receipt(sequence, fields["statement"]), sha256(data))


def _point(index: JSON, sequence: int, found: Receipt) -> None:
    for table, name in (("keys", found.key), ("digests", found.digest)):
        if name is not None:
            index[table][name] = sorted({*index[table].get(name, []), sequence})


def _render(sequence: int, previous: Any, statement: Any) -> bytes:
    fields = {"sequence": sequence, "previous": previous, "statement": statement}
    return canonical.dumps({**fields, "digest": canonical.digest(fields)})


def sha256(data: bytes) -> str:
    """SHA-256 of an entry's file, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
