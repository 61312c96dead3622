"""The store: immutable folders named by the digest of their manifest, under one home folder.

Laws: a blob is named by the SHA-256 of its bytes and a manifest by its digest, and neither is ever changed; blobs are
on disk before the manifest that names them, so an artifact is there completely or not at all; files leave the store
only through ``materialize`` and ``read``, which hash what they hand out; publishing the same bytes again changes
nothing but heals a blob that was altered. What a killed process left in ``tmp/`` is removed when the store is opened
next.

    objects/blobs/<aa>/<sha256>     files, read-only
    objects/manifests/<digest>.json the files of an artifact
    ledger/ checkpoints/ runs/      receipts, one folder per key, one folder per run
    cache/ tmp/                     may be deleted whenever no vitops process runs

``SharedStore`` (vitops.store.shared) is a store whose artifacts lie in a bucket; the laws are the same.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vitops.errors import UsageError, VerificationError, VitopsError
from vitops.store import durable, manifest
from vitops.store.canonical import sha256_file
from vitops.store.manifest import FileEntry
from vitops.store.objects import Objects
from vitops.store.prefixes import resolve
from vitops.store.readable import readable
from vitops.store.refs import Ref
from vitops.store.scratch import Scratch
from vitops.store.stat_memo import StatMemo

OBJECTS = "objects"
FOLDERS = ("ledger", "checkpoints", "runs", "cache/artifacts", "tmp/locks")
LOCK_NAME = re.compile(r"[A-Za-z0-9@._-]{1,200}")
DIGESTS = "sha256"


class Store:
    """A store in the folder ``home``, created if missing. ``memo`` holds the stat records of its cache."""

    shared: Objects | None = None
    """The bucket of a store that many homes share."""

    def __init__(self, home: Path, *, objects: str = OBJECTS) -> None:
        """``objects``: the folder in ``home`` for blobs and manifests."""
        self.home = home.absolute()
        self.blobs, self.manifests = self.home / objects / "blobs", self.home / objects / "manifests"
        self.runs, self.cache = self.home / "runs", self.home / "cache"
        for folder in (self.blobs, self.manifests, *(self.home / name for name in FOLDERS)):
            durable.make_folder(folder)
        self.memo = StatMemo(self.cache / "stat")
        self._scratch = Scratch(self.home / "tmp")
        self._numbers = itertools.count()

    def check_server(self) -> None:
        """Make sure that a run may write: of a shared store, that its server keeps what the store rests on.

        Raises VitopsError.
        """

    def publish(self, folder: Path, kind: str, metadata: Mapping[str, Any] | None = None) -> Ref:
        """Copy the folder's files into the store and return the reference that names them.

        Raises VitopsError when the folder is empty or holds a link, when a file changes meanwhile, and when the disk is
        full or read-only; the store is then as before, but for blobs that nothing names.
        """
        entries = manifest.scan_all(folder)
        if not entries:
            raise VitopsError(f"nothing to publish: {folder} holds no file. A stage must write its output there.")
        for entry in entries:
            self._take_in(folder / entry.path, entry)
        digest = manifest.digest(entries)
        self._write_manifest(digest, entries)
        return Ref(kind=kind, digest=digest, metadata=dict(metadata or {}))

    def materialize(self, digest: str) -> Path:
        """The artifact's files as plain copies in ``cache/artifacts/<digest>``, every byte hashed before it returns.

        Raises UsageError for an artifact that is not here, VerificationError for one that is altered or incomplete.
        """
        entries = self.manifest(digest)
        target = self.cache / "artifacts" / digest
        with self.lock(f"artifact-{digest}"):
            if target.is_symlink():
                durable.remove(target)
            if target.is_dir():
                self._mend(target, digest, entries)
            else:
                with self.workspace() as unfinished:
                    self._mend(unfinished, digest, entries)
                    durable.rename_dir(unfinished, target)
        return target

    def manifest(self, digest: str) -> list[FileEntry]:
        """The artifact's files. Raises UsageError if there is no such artifact, VerificationError if it is altered."""
        path = self._manifest_path(digest)
        try:
            with readable(path):
                data = path.read_bytes()
            return checked(digest, data, path)
        except FileNotFoundError as error:
            raise UsageError(f"no artifact {digest} in {self.home}. `vitops ls` lists those that are there.") from error

    def read(self, digest: str, path: str) -> bytes | None:
        """One file of the artifact, hashed; None if it has no such file.

        Raises UsageError for an artifact that is not here, VerificationError for an altered one.
        """
        for entry in self.manifest(digest):
            if entry.path == path:
                blob = self.blob(entry.sha256)
                with self._distrusted(entry), readable(blob):
                    data = blob.read_bytes() if blob.is_file() else b""
                found = hashlib.sha256(data).hexdigest()
                if found != entry.sha256:
                    self.distrust(entry.sha256)
                    raise altered(digest, blob, expected=entry.sha256, found=found, name=path)
                return data
        return None

    def present(self, digest: str) -> bool:
        """Whether the artifact is complete and unaltered: files whose stat record changed since are hashed again."""
        try:
            entries = self.manifest(digest)
        except (UsageError, VerificationError):
            return False
        return all(self._intact(entry) for entry in entries)

    def find(self, prefix: str) -> str:
        """The digest of the one artifact that begins with these hex digits (at least 6). Raises UsageError."""
        return resolve(prefix, self.digests(), what="artifact")

    def digests(self) -> list[str]:
        """Digests of all artifacts, sorted."""
        return sorted(path.stem for path in self.manifests.glob("*.json"))

    def blob(self, sha256: str) -> Path:
        """Where the blob of that name lies, whether it is there or not. For checks; readers use ``materialize``."""
        return self.blobs / sha256[:2] / sha256

    def place(self, digest: str) -> Path | str:
        """Where the artifact's manifest is, or would be, for messages."""
        return self._manifest_path(digest)

    def distrust(self, sha256: str) -> None:
        """Hash this blob again before it counts as present: somebody found it altered behind its stat record."""
        self.memo.forget(DIGESTS, self.blob(sha256))
        self.memo.save()

    def discard(self, digest: str) -> None:
        """Remove the artifact, its copy, and the blobs that no other artifact names. Its receipts stay."""
        entries = self._entries_or_none(digest) or []
        self._drop_manifest(digest)
        durable.remove(self.cache / "artifacts" / digest)
        used = {entry.sha256 for other in self.digests() for entry in self._entries_or_none(other) or []}
        for name in {entry.sha256 for entry in entries} - used:
            self._drop_blob(name)

    def checkpoints(self, key: str) -> Path:
        """The folder for the checkpoints of one stage key, created if missing."""
        return durable.make_folder(self.home / "checkpoints" / key)

    def shared_checkpoints(self, key: str) -> str | None:
        """The URL below which other homes find the checkpoints of one stage key; None if the store is not shared."""
        return f"{self.shared.url}/checkpoints/{key}" if self.shared else None

    def drop_checkpoints(self, key: str) -> None:
        """Remove this home's checkpoints of a finished stage key; what cannot be removed only takes space."""
        folder = self.home / "checkpoints" / key
        if folder.is_dir():
            with suppress(OSError, VitopsError):
                durable.remove(folder)

    def shared_leftovers(self, key: str) -> list[str]:
        """The objects that checkpoints of a stage key left in the bucket; none where it does not answer."""
        if self.shared is not None:
            with suppress(VitopsError):
                return list(self.shared.sizes(f"checkpoints/{key}/"))
        return []

    def drop_shared_checkpoints(self, key: str, *, check: Callable[[], None]) -> None:
        """Remove the bucket's checkpoints of a finished stage key; only for who holds the key against other homes.

        ``check`` is called before each object and raises VitopsError when that is over: the others stay.
        """
        with suppress(VitopsError):
            for name in self.shared_leftovers(key):
                check()
                if self.shared is not None:
                    self.shared.remove(name)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A fresh empty folder, removed after the block, or at the next opening if this process was killed."""
        folder = durable.make_folder(self._scratch.folder() / str(next(self._numbers)))
        try:
            yield folder
        finally:
            if folder.exists():
                durable.remove(folder)

    @contextmanager
    def lock(self, name: str, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock of that name against other processes and threads of this home, waiting for it.

        A death frees it. ``waiting``: as in ``durable.locked``.
        """
        with durable.locked(self.lock_file(name), waiting=waiting):
            yield

    def lock_file(self, name: str) -> Path:
        """The file that ``lock`` locks."""
        if not LOCK_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a lock")
        return self.home / "tmp/locks" / name

    def _manifest_path(self, digest: str) -> Path:
        if not manifest.HEX64.fullmatch(digest):
            raise UsageError(f"{digest!r} is no artifact digest: it has 64 hex digits.")
        return self.manifests / f"{digest}.json"

    def _entries_or_none(self, digest: str) -> list[FileEntry] | None:
        try:
            return self.manifest(digest)
        except (UsageError, VerificationError):
            return None

    def _take_in(self, source: Path, entry: FileEntry) -> None:
        target = self.blob(entry.sha256)
        with suppress(VerificationError):  # what cannot be read is replaced
            if target.is_file() and not target.is_symlink() and sha256_file(target) == entry.sha256:
                return
        self.memo.forget(DIGESTS, target)
        durable.make_folder(target.parent)
        aside = self._scratch.folder()
        found = durable.copy(source, target, expected=entry.sha256, aside=aside, mode=0o444)
        if found != entry.sha256:
            raise VitopsError(f"{source} changed while it was published. Let nothing else write there, then run again.")

    def _write_manifest(self, digest: str, entries: Iterable[FileEntry]) -> None:
        path, data = self._manifest_path(digest), manifest.render(entries)
        aside = self._scratch.folder()
        if not durable.create_only(path, data, aside=aside) and not _holds(path, data):
            durable.write_bytes(path, data, aside=aside)

    def _drop_manifest(self, digest: str) -> None:
        durable.remove(self._manifest_path(digest))

    def _drop_blob(self, sha256: str) -> None:
        durable.remove(self.blob(sha256))

    def _intact(self, entry: FileEntry) -> bool:
        path = self.blob(entry.sha256)
        if not path.is_file():
            return False
        try:
            return self.memo.value(DIGESTS, path, sha256_file) == entry.sha256
        except VerificationError:
            return False

    @contextmanager
    def _distrusted(self, entry: FileEntry) -> Iterator[None]:
        """Where the block cannot read the blob, it does not count as present any more."""
        try:
            yield
        except VerificationError:
            self.distrust(entry.sha256)
            raise

    def _mend(self, folder: Path, digest: str, entries: Iterable[FileEntry]) -> None:
        """Make the folder hold exactly these files, touching only what differs."""
        expected = {entry.path for entry in entries}
        for extra in [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]:
            if extra.is_symlink() or extra.relative_to(folder).as_posix() not in expected:
                durable.remove(extra)
        for entry in entries:
            path = folder / entry.path
            if path.is_dir():
                durable.remove(path)
            if manifest.difference(path, entry):
                self._copy_out(entry, path, digest)

    def _copy_out(self, entry: FileEntry, path: Path, digest: str) -> None:
        durable.make_folder(path.parent)
        blob = self.blob(entry.sha256)
        try:
            with self._distrusted(entry):
                found = durable.copy(blob, path, expected=entry.sha256, aside=self._scratch.folder(), sync=False)
        except FileNotFoundError as error:
            raise altered(digest, blob, expected=entry.sha256, found="no file", name=entry.path) from error
        if found != entry.sha256:
            self.distrust(entry.sha256)
            raise altered(digest, blob, expected=entry.sha256, found=found, name=entry.path)


def _holds(path: Path, data: bytes) -> bool:
    try:
        with readable(path):
            return path.read_bytes() == data
    except VerificationError:
        return False


def checked(digest: str, data: bytes, place: Path | str) -> list[FileEntry]:
    """The entries of a manifest's bytes. Raises VerificationError naming ``place`` unless the digest is theirs."""
    try:
        entries = manifest.parse(data)
    except ValueError as error:
        raise altered(digest, place, expected=digest, found=f"no manifest ({error})") from error
    if (found := manifest.digest(entries)) != digest:
        raise altered(digest, place, expected=digest, found=found)
    return entries


def altered(digest: str, place: Path | str, *, expected: str, found: str, name: str = "manifest") -> VerificationError:
    """The error for a file of an artifact, or its manifest, whose bytes are others than those published."""
    return VerificationError(
        f"artifact {digest}: {name} ({place}) is not what was published: expected SHA-256 {expected}, found {found}. "
        "Run the pipeline that made it again: the stage is executed and the file written anew."
    )
