"""Are a shared store's artifacts still what they were? Re-hashes every blob, manifest and checkpoint in the bucket.

Laws: those of ``vitops.lineage.verify``; copies in this home are no evidence and prove nothing, so none is read. A
training that goes on meanwhile removes checkpoints: what is gone with its manifest is no problem.
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from vitops.errors import UsageError, VerificationError
from vitops.lineage.problem import RUN_AGAIN, Problem, stray
from vitops.store import durable, manifest
from vitops.store.bucket import BLOBS, MANIFESTS, blob_name, manifest_name, read_checked
from vitops.store.manifest import FileEntry
from vitops.store.shared import SharedStore
from vitops.store.side_by_side import side_by_side

CHECKPOINTS = "checkpoints/"
_PASSED_OVER = "The training passes over this checkpoint and goes on from an earlier one."


def problems(store: SharedStore) -> Iterator[Problem]:
    """The problems of all objects but the ledger's, as they are found.

    Raises VitopsError where the bucket cannot be read.
    """
    names = store.shared.sizes("objects/")
    made: dict[str, list[FileEntry]] = {}
    for name in names:
        digest = PurePosixPath(name).stem
        if name.startswith(MANIFESTS) and name == manifest_name(digest):
            yield from _manifest(store, digest, made)
        elif not name.startswith(BLOBS) or name != blob_name(PurePosixPath(name).name):
            yield stray(_place(store, name))
    yield from _missing(store, names, made)
    yield from _altered(store, [name for name in names if name.startswith(BLOBS)], made)
    yield from _checkpoints(store)


def _manifest(store: SharedStore, digest: str, made: dict[str, list[FileEntry]]) -> Iterator[Problem]:
    """Read it from the bucket; a copy here must not hide that it is altered there, or no run would write it anew."""
    durable.remove(store.manifests / f"{digest}.json")
    try:
        made[digest] = store.manifest(digest)
    except VerificationError as error:
        yield Problem(_place(store, manifest_name(digest)), str(error))
    except UsageError:  # it was discarded meanwhile, or is named by no digest
        if not manifest.HEX64.fullmatch(digest):
            yield stray(_place(store, manifest_name(digest)))


def _missing(store: SharedStore, names: Mapping[str, int], made: Mapping[str, list[FileEntry]]) -> Iterator[Problem]:
    for digest, entries in made.items():
        for entry in entries:
            name = blob_name(entry.sha256)
            if name not in names:
                yield Problem(_place(store, name), f"missing: it is {entry.path} of artifact {digest}. {RUN_AGAIN}")


def _altered(store: SharedStore, names: list[str], made: Mapping[str, list[FileEntry]]) -> Iterator[Problem]:
    for name, found in zip(names, side_by_side(store.shared.sha256, names), strict=True):
        sha256 = PurePosixPath(name).name
        if found is not None and found != sha256:
            store.distrust(sha256)
            yield Problem(_place(store, name), f"altered: SHA-256 is {found}. {_user(sha256, made)}")


def _checkpoints(store: SharedStore) -> Iterator[Problem]:
    """Those that have their manifest; one without claims nothing (an upload that came to no end leaves such)."""
    for name in store.shared.sizes(CHECKPOINTS):
        if PurePosixPath(name).name == manifest.NAME:
            said = read_checked(store.shared, name, lambda data: _entries(data) is not None)
            if said is not None:
                yield from _checkpoint(store, name, _entries(said))


def _checkpoint(store: SharedStore, name: str, entries: list[FileEntry] | None) -> Iterator[Problem]:
    """Of the checkpoint whose manifest ``name`` is; ``entries``: what that says, None if it is no manifest."""
    if entries is None:
        yield Problem(_place(store, name), f"altered: it is no manifest. {_PASSED_OVER}")
        return
    files = [str(PurePosixPath(name).parent / entry.path) for entry in entries]
    for file, entry, found in zip(files, entries, side_by_side(store.shared.sha256, files), strict=True):
        if found != entry.sha256 and store.shared.read(name) is not None:
            how = "missing" if found is None else f"altered: SHA-256 is {found}, its manifest says {entry.sha256}"
            yield Problem(_place(store, file), f"{how}. {_PASSED_OVER}")


def _entries(data: bytes) -> list[FileEntry] | None:
    try:
        return manifest.parse(data)
    except ValueError:
        return None


def _user(sha256: str, made: Mapping[str, list[FileEntry]]) -> str:
    for digest, entries in made.items():
        for entry in entries:
            if entry.sha256 == sha256:
                return f"It is {entry.path} of artifact {digest}. {RUN_AGAIN}"
    return "No artifact names it: delete it."


def _place(store: SharedStore, name: str) -> str:
    return f"{store.shared.url}/{name}"
