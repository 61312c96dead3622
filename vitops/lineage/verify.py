"""Is everything still what it was? Re-hashes the store and the data folders and names what is not.

Laws: nothing is trusted (no stat record, no index) and nothing is repaired; memory does not grow with the bytes;
whatever is found altered loses its stat record, so that the next plan runs the stage that heals it. ``cache/``,
``tmp/`` and ``runs/`` hold no evidence and are left out; blobs that nothing names are no problem while they are intact,
for a killed publish leaves some.
"""

from collections.abc import Iterator
from pathlib import Path

from vitops.errors import VitopsError
from vitops.lineage import data_folders, verify_shared
from vitops.lineage.ledger import START, Ledger
from vitops.lineage.problem import FROM_BACKUP, RUN_AGAIN, Problem, stray
from vitops.lineage.receipts import DATA_KINDS, Receipt
from vitops.lineage.shared_ledger import open_ledger
from vitops.store import manifest
from vitops.store.artifacts import Store
from vitops.store.canonical import sha256_file
from vitops.store.shared import SharedStore, open_store


def verify(home: Path, root: Path | None) -> list[Problem]:
    """Everything that is wrong in the store ``home`` and, given the project root, in its data folders."""
    return list(problems(home, root))


def problems(home: Path, root: Path | None) -> Iterator[Problem]:
    """The problems as they are found."""
    store = open_store(home)
    ledger = open_ledger(home, store.shared)
    latest: dict[str, Receipt] = {}
    if isinstance(store, SharedStore):
        yield from verify_shared.problems(store)
    else:
        yield from _strays(store)
        yield from _blobs(store)
        yield from _manifests(store)
    yield from _ledger(ledger, latest)
    yield from _receipts(store, latest)
    yield from _checkpoints(store)
    if root is not None:
        yield from (Problem(path, sentence) for path, sentence in data_folders.differences(root, ledger.entries()))


def _strays(store: Store) -> Iterator[Problem]:
    for path in sorted((store.home / "objects").iterdir()):
        if path.name not in ("blobs", "manifests"):
            yield stray(path)


def _blobs(store: Store) -> Iterator[Problem]:
    for path in _walk(store.blobs):
        if path != store.blob(path.name) or not manifest.HEX64.fullmatch(path.name) or path.is_symlink():
            yield stray(path)
        elif sentence := _difference(path):
            store.distrust(path.name)
            yield Problem(path, f"{sentence} {_users(store, path.name)}")


def _difference(blob: Path) -> str | None:
    try:
        found = sha256_file(blob)
    except VitopsError as error:
        return str(error)
    return None if found == blob.name else f"altered: SHA-256 is {found}."


def _users(store: Store, name: str) -> str:
    """Which artifacts a blob belongs to; looked up only for an altered one, so that no table of all is kept."""
    for digest in store.digests():
        for entry in _entries(store, digest):
            if entry.sha256 == name:
                return f"It is {entry.path} of artifact {digest}. {RUN_AGAIN}"
    return "No artifact names it: delete it."


def _manifests(store: Store) -> Iterator[Problem]:
    for path in _walk(store.manifests):
        if path.suffix != ".json" or not manifest.HEX64.fullmatch(path.stem) or path.parent != store.manifests:
            yield stray(path)
            continue
        try:
            entries = store.manifest(path.stem)
        except VitopsError as error:
            yield Problem(path, str(error))
            continue
        for entry in entries:
            if not store.blob(entry.sha256).is_file():
                blob = store.blob(entry.sha256)
                yield Problem(blob, f"missing: it is {entry.path} of artifact {path.stem}. {RUN_AGAIN}")


def _ledger(ledger: Ledger, latest: dict[str, Receipt]) -> Iterator[Problem]:
    """Check the chain; fill ``latest`` with the newest intact receipt of every key."""
    previous: str | None = START
    expected = 0
    for sequence in ledger.sequences():
        place = ledger.place(sequence)
        if sequence > expected:
            gap = f"missing, {sequence - expected} in all: the ledger goes on with {ledger.path(sequence).name}."
            yield Problem(ledger.place(expected), f"{gap} {FROM_BACKUP}")
            previous = None
        expected = sequence + 1
        try:
            entry = ledger.read_original(sequence)
        except (ValueError, OSError, RecursionError) as error:
            yield Problem(place, f"altered: {error}. {FROM_BACKUP}")
            previous = None
            continue
        if previous is not None and entry.previous != previous:
            sentence = f"it follows an entry with SHA-256 {entry.previous}, but the one before has {previous}."
            yield Problem(place, f"{sentence} {FROM_BACKUP}")
        previous = entry.sha256
        if entry.receipt.key is not None:
            latest[entry.receipt.key] = entry.receipt
    yield from map(stray, ledger.strays())


def _receipts(store: Store, latest: dict[str, Receipt]) -> Iterator[Problem]:
    """The artifact of every key's newest receipt must be here; older ones were replaced by it."""
    made = set(store.digests())
    for receipt in latest.values():
        if receipt.kind in DATA_KINDS:
            continue
        path = store.place(receipt.digest)
        claim = f"receipt {receipt.sequence} (stage {receipt.stage} of {receipt.pipeline})"
        if receipt.digest not in made:
            yield Problem(path, f"missing: {claim} is about this artifact. {RUN_AGAIN}")
        elif (entries := _entries(store, receipt.digest)) and {e.path: e.sha256 for e in entries} != receipt.files:
            yield Problem(path, f"its files are not those that {claim} lists.")


def _checkpoints(store: Store) -> Iterator[Problem]:
    """Folders that carry their own manifest; one without claims nothing (a stage that was killed leaves such)."""
    for folder in sorted(store.home.glob("checkpoints/**/")):
        if (folder / manifest.NAME).is_file():
            try:
                for path, sentence in manifest.differences(folder):
                    yield Problem(path, sentence)
            except VitopsError as error:
                yield Problem(folder, str(error))


def _entries(store: Store, digest: str) -> list[manifest.FileEntry]:
    try:
        return store.manifest(digest)
    except VitopsError:
        return []


def _walk(folder: Path) -> Iterator[Path]:
    """Files below, folder by folder, without holding more than one folder's names."""
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                yield from _walk(path)
            else:
                yield path
