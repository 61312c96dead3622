"""Artifacts in a bucket: blobs and manifests under the names that they have in a local store.

Laws: blobs are uploaded before the manifest that names them, which is created, and replaced only if it is altered;
publishing uploads every blob, whatever the server says it has, so it heals. What was found altered is noted in this
home and hashed again before it counts as there.

    objects/blobs/<aa>/<sha256>  objects/manifests/<digest>.json
"""

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from vitops.errors import VerificationError
from vitops.store import cache_file, manifest
from vitops.store.manifest import FileEntry
from vitops.store.objects import Objects
from vitops.store.side_by_side import side_by_side

BLOBS, MANIFESTS = "objects/blobs/", "objects/manifests/"
READS = 3


class Bucket:
    """Blobs and manifests below the prefix of ``objects``; ``notes`` is a file that may be lost."""

    def __init__(self, objects: Objects, notes: Path) -> None:
        self._objects, self._notes = objects, notes

    def publish(self, digest: str, entries: Iterable[FileEntry], local: Callable[[str], Path]) -> None:
        """Upload the blobs (``local``: SHA-256 -> file), then the manifest. Raises VitopsError."""
        listed = list(entries)
        names = sorted({entry.sha256 for entry in listed})
        for _ in side_by_side(lambda one: self._objects.upload(blob_name(one), local(one), sha256=one), names):
            pass
        self._note(dict.fromkeys(names, False))
        name, data = manifest_name(digest), manifest.render(listed)
        if not self._objects.create(name, data):
            self._objects.write(name, data)

    def manifest(self, digest: str) -> bytes | None:
        """The manifest's bytes, which may be altered; None if it is not there. Raises VitopsError."""
        return read_checked(self._objects, manifest_name(digest), lambda data: _names(data) == digest)

    def complete(self, digest: str, entries: Iterable[FileEntry]) -> bool:
        """Whether the manifest and all blobs are there with the right sizes, none of them found altered before.

        Raises VitopsError.
        """
        listed = list(entries)
        wanted = {blob_name(entry.sha256): entry.size for entry in listed}
        wanted[manifest_name(digest)] = len(manifest.render(listed))
        sizes = list(side_by_side(lambda name: self._objects.sizes(name).get(name), wanted))
        return sizes == list(wanted.values()) and all(self._trusted(entry.sha256) for entry in listed)

    def fetch(self, sha256: str, target: Path, *, aside: Path) -> None:
        """Download a blob. Raises FileNotFoundError if it is not there, VerificationError if altered, VitopsError."""
        try:
            self._objects.download(blob_name(sha256), target, sha256=sha256, aside=aside)
        except VerificationError:
            self.distrust(sha256)
            raise
        self._note({sha256: False})

    def digests(self) -> list[str]:
        """Digests of all artifacts, sorted. Raises VitopsError."""
        names = [PurePosixPath(name) for name in self._objects.sizes(MANIFESTS)]
        return sorted(name.stem for name in names if str(name) == manifest_name(name.stem))

    def remove(self, name: str) -> None:
        """Delete a blob or a manifest. Raises VitopsError."""
        self._objects.remove(name)

    def distrust(self, sha256: str) -> None:
        """Hash this blob again before it counts as there."""
        self._note({sha256: True})

    def _trusted(self, sha256: str) -> bool:
        if sha256 not in (cache_file.load(self._notes) or {}):
            return True
        intact = self._objects.sha256(blob_name(sha256)) == sha256
        self._note({sha256: not intact})
        return intact

    def _note(self, altered: dict[str, bool]) -> None:
        before = cache_file.load(self._notes) or {}
        after = {name: True for name, bad in {**before, **altered}.items() if bad}
        if after != before:
            cache_file.save(self._notes, after)


def read_checked(objects: Objects, name: str, intact: Callable[[bytes], bool]) -> bytes | None:
    """A small object's bytes, read again while they are not intact: they may have been altered on their way only.

    The last ones if they never are; None if it is not there. Raises VitopsError.
    """
    data = objects.read(name)
    for _ in range(READS - 1):
        if data is None or intact(data):
            break
        data = objects.read(name)
    return data


def _names(data: bytes) -> str | None:
    """The digest of a manifest's bytes; None if they are no manifest."""
    try:
        return manifest.digest(manifest.parse(data))
    except ValueError:
        return None


def blob_name(sha256: str) -> str:
    """Name of a blob in the bucket."""
    return f"{BLOBS}{sha256[:2]}/{sha256}"


def manifest_name(digest: str) -> str:
    """Name of a manifest in the bucket."""
    return f"{MANIFESTS}{digest}.json"
