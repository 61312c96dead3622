"""The ledger of a shared store: ``ledger/<number>.json`` in its bucket, with copies of intact entries here.

Laws: those of ``vitops.lineage.ledger``; an entry is created by one create-only request, and whoever loses the number
takes the next one. Every question asks the bucket first for the numbers behind those that are known. The copies are
believed only while the last of them is what the bucket has.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from vitops.lineage.ledger import Entry, Ledger, entry, sha256
from vitops.lineage.receipts import Receipt
from vitops.store import durable
from vitops.store.bucket import read_checked
from vitops.store.objects import Objects
from vitops.store.scratch import Scratch
from vitops.store.shared import copies_of
from vitops.store.side_by_side import side_by_side

FOLDER = "ledger/"


def open_ledger(home: Path, shared: Objects | None) -> Ledger:
    """The ledger of a store in ``home``, or of the shared one (``Store.shared``)."""
    return Ledger(home) if shared is None else SharedLedger(home, shared)


class SharedLedger(Ledger):
    """The ledger in ``shared``; ``home`` keeps copies and the index."""

    def __init__(self, home: Path, shared: Objects) -> None:
        super().__init__(home)
        copies = home.absolute() / copies_of(shared)
        self.folder, self._cache = copies / "ledger", copies / "ledger.json"
        self._shared = shared
        self._known: list[int] | None = None

    def place(self, sequence: int) -> Path | str:
        """See ``Ledger``."""
        return f"{self._shared.url}/{_name(sequence)}"

    def sequences(self) -> list[int]:
        """The numbers that have an entry now, sorted. Raises VitopsError."""
        if self._known is None:
            self._drop_strange_copies()
        known = self._known or []
        after = _name(known[-1]) if known else ""
        stems = [PurePosixPath(name).stem for name in self._shared.sizes(FOLDER, after=after)]
        self._known = [*known, *sorted(int(stem) for stem in stems if stem.isdecimal() and len(stem) == 8)]
        return self._known

    def strays(self) -> Iterator[Path | str]:
        """See ``Ledger``."""
        known = {_name(sequence) for sequence in self.sequences()}
        return (f"{self._shared.url}/{name}" for name in self._shared.sizes(FOLDER) if name not in known)

    def read(self, sequence: int) -> Entry:
        """See ``Ledger``; from the copy if that is intact."""
        with suppress(ValueError, OSError, RecursionError):
            return entry(sequence, self.path(sequence).read_bytes())
        return self.read_original(sequence)

    def read_original(self, sequence: int) -> Entry:
        """See ``Ledger``."""
        data = self._bytes(sequence)
        found = entry(sequence, data)
        durable.make_folder(self.folder)
        durable.write_bytes(self.path(sequence), data, sync=False)
        return found

    def _bytes(self, sequence: int) -> bytes:
        data = read_checked(self._shared, _name(sequence), lambda data: _intact(sequence, data))
        if data is None:
            raise FileNotFoundError(f"{self.place(sequence)} is gone")
        return data

    def _create(self, sequence: int, data: bytes, *, aside: Scratch) -> bool:
        return self._shared.create(_name(sequence), data)

    def _receipts(self, sequences: list[int]) -> Iterator[Receipt | None]:
        return side_by_side(self._receipt, sequences)

    def _grown(self, number: int) -> bool:
        return self.sequences()[-1:] >= [number]

    def _drop_strange_copies(self) -> None:
        """Forget the copies if they are those of another bucket, which had this one's name before."""
        last = max(self.folder.glob("*.json"), default=None)
        if last is not None:
            data = self._shared.read(FOLDER + last.name)
            if data is None or sha256(data) != sha256(last.read_bytes()):
                durable.remove(self.folder)


def _intact(sequence: int, data: bytes) -> bool:
    try:
        entry(sequence, data)
    except (ValueError, RecursionError):
        return False
    return True


def _name(sequence: int) -> str:
    return f"{FOLDER}{sequence:08d}.json"
