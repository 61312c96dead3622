"""A store whose artifacts lie in a bucket that many homes share; this home keeps copies of what it uses.

Laws: those of ``vitops.store.artifacts``, with the bucket having the last word on what there is. A copy that is lost or
altered is downloaded again; bytes are hashed on their way in and again when they are handed out. Two homes may discard
and publish at once: an artifact that loses a blob to that is not there, and the next run makes it.

    cache/shared/<place>/    blobs, manifests, ledger entries: copies from one bucket, any of which may be deleted
"""

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitops.config.shared_store import cache_limit, shared_store
from vitops.errors import UsageError, VerificationError
from vitops.store import durable
from vitops.store.artifacts import Store, altered, checked
from vitops.store.bucket import Bucket, blob_name, manifest_name
from vitops.store.create_only import require_create_only
from vitops.store.manifest import FileEntry
from vitops.store.objects import Objects
from vitops.store.read_cache import ReadCache
from vitops.store.refs import Ref


def shared_objects() -> Objects | None:
    """The objects that ``VITOPS_STORE`` names; None for a local store. Raises UsageError."""
    setting = shared_store()
    if setting is None:
        return None
    from vitops.store.s3 import S3Objects  # imports that a local store does without

    return S3Objects(setting.bucket, setting.prefix)


def objects_at(url: str) -> Objects:
    """The objects below a URL that some ``Objects.url`` begins, no request made yet."""
    from vitops.store.s3 import S3Objects

    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return S3Objects(bucket, prefix)


def open_store(home: Path) -> Store:
    """The store in ``home``, or the one that ``VITOPS_STORE`` names, with ``home`` as its cache and place to work in.

    Raises UsageError for wrong settings, VitopsError.
    """
    objects = shared_objects()
    return Store(home) if objects is None else SharedStore(home, objects, cache_limit=cache_limit())


def copies_of(objects: Objects) -> str:
    """The folder in a home for copies from there: homes may change buckets without mixing them up."""
    return f"cache/shared/{hashlib.sha256(objects.identity.encode()).hexdigest()[:16]}"


class SharedStore(Store):
    """A store with its artifacts in ``shared``; ``cache_limit``: bytes of copies that the home keeps."""

    def __init__(self, home: Path, shared: Objects, *, cache_limit: int) -> None:
        super().__init__(home, objects=copies_of(shared))
        self.shared: Objects = shared
        self._bucket = Bucket(shared, self.blobs.parent / "altered.json")
        self._kept = ReadCache(self.blobs, self.cache / "artifacts", locks=self.home / "tmp/locks", limit=cache_limit)

    def check_server(self) -> None:
        """See ``Store``; asked once by every home."""
        require_create_only(self.shared, self.blobs.parent / "server.json")

    def publish(self, folder: Path, kind: str, metadata: Mapping[str, Any] | None = None) -> Ref:
        """See ``Store``; also raises VitopsError when the bucket cannot be written."""
        with self._kept.busy():
            return super().publish(folder, kind, metadata)

    def materialize(self, digest: str) -> Path:
        """See ``Store``; the folder stays as long as this process lives."""
        with self._kept.busy():
            folder = super().materialize(digest)
            self._kept.use(folder)
            return folder

    def manifest(self, digest: str) -> list[FileEntry]:
        """See ``Store``."""
        path = self._manifest_path(digest)
        with suppress(UsageError, VerificationError):
            return super().manifest(digest)
        data = self._bucket.manifest(digest)
        if data is None:
            raise UsageError(f"no artifact {digest} in {self.shared.url}. `vitops ls` lists those that are there.")
        entries = checked(digest, data, self.place(digest))
        durable.write_bytes(path, data, aside=self._scratch.folder(), sync=False)
        return entries

    def read(self, digest: str, path: str) -> bytes | None:
        """See ``Store``."""
        with self._kept.busy():
            try:
                return super().read(digest, path)
            except VerificationError:
                for entry in self.manifest(digest):
                    if entry.path == path:
                        self._fetch(entry, digest)
                return super().read(digest, path)

    def present(self, digest: str) -> bool:
        """Whether the artifact is there with the right sizes, and no byte of it was found altered before."""
        try:
            entries = self.manifest(digest)
        except (UsageError, VerificationError):
            return False
        return self._bucket.complete(digest, entries)

    def digests(self) -> list[str]:
        """See ``Store``."""
        return self._bucket.digests()

    def place(self, digest: str) -> Path | str:
        """See ``Store``."""
        return f"{self.shared.url}/{manifest_name(digest)}"

    def distrust(self, sha256: str) -> None:
        """See ``Store``."""
        self._bucket.distrust(sha256)

    def _write_manifest(self, digest: str, entries: Iterable[FileEntry]) -> None:
        listed = list(entries)
        self._bucket.publish(digest, listed, self.blob)
        super()._write_manifest(digest, listed)

    def _drop_manifest(self, digest: str) -> None:
        self._bucket.remove(manifest_name(digest))
        super()._drop_manifest(digest)

    def _drop_blob(self, sha256: str) -> None:
        self._bucket.remove(blob_name(sha256))
        super()._drop_blob(sha256)

    def _copy_out(self, entry: FileEntry, path: Path, digest: str) -> None:
        try:
            super()._copy_out(entry, path, digest)
        except VerificationError:
            self._fetch(entry, digest)
            super()._copy_out(entry, path, digest)
        durable.mark_used(self.blob(entry.sha256))

    def _fetch(self, entry: FileEntry, digest: str) -> None:
        blob = self.blob(entry.sha256)
        durable.make_folder(blob.parent)
        try:
            self._bucket.fetch(entry.sha256, blob, aside=self._scratch.folder())
        except FileNotFoundError as error:
            place = f"{self.shared.url}/{blob_name(entry.sha256)}"
            raise altered(digest, place, expected=entry.sha256, found="no object", name=entry.path) from error
