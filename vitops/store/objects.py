"""What a shared store needs of an object server: a flat table of names to bytes.

Laws: a name is a POSIX path relative to the table's own prefix; bytes appear under a name all at once or not at all;
what one caller created or wrote, every caller sees from then on. An answer that was lost does no harm: every operation
may be done twice. Failures the user can do something about are VitopsErrors that name the object and the way out, and
never a credential.
"""

from pathlib import Path
from typing import Protocol


class Objects(Protocol):
    """Objects below one prefix of a bucket. All methods may be called from several threads."""

    @property
    def url(self) -> str:
        """Where the objects are, e.g. ``s3://bucket/prefix``."""

    @property
    def identity(self) -> str:
        """What tells this place from every other, the server included. Raises VitopsError."""

    def read(self, name: str) -> bytes | None:
        """The object's bytes as the server gave them, for small objects that check themselves; None if it is not there.

        Raises VitopsError.
        """

    def sha256(self, name: str) -> str | None:
        """SHA-256 of the object's bytes, read in pieces and kept nowhere; None if it is not there.

        Raises VitopsError.
        """

    def download(self, name: str, target: Path, *, sha256: str, aside: Path | None = None) -> None:
        """Create or replace the file ``target``, read-only, with the object's bytes, hashed as they come.

        ``aside``: folder for the unfinished file (default: beside the target). Raises FileNotFoundError if there is no
        such object, VerificationError if its bytes are others every time, VitopsError; ``target`` is then as before.
        """

    def upload(self, name: str, source: Path, *, sha256: str) -> None:
        """Create or replace the object with the file's bytes, in parts if it is large.

        Raises VerificationError, and leaves the object as it was, if the file's SHA-256 is another; VitopsError.
        """

    def create(self, name: str, data: bytes) -> bool:
        """Create the object; False, and nothing changed, if another has the name.

        True also if the object has exactly these bytes already: then an earlier try won and its answer was lost. So
        whoever must know that it was itself and nobody else puts something of its own into the bytes. Raises
        VitopsError.
        """

    def write(self, name: str, data: bytes) -> None:
        """Create or replace the object. Raises VitopsError."""

    def remove(self, name: str) -> None:
        """Delete the object; nothing happens if it is not there. Raises VitopsError."""

    def sizes(self, prefix: str, *, after: str = "") -> dict[str, int]:
        """Names that begin with ``prefix`` and sort behind ``after``, in order, with their sizes in bytes.

        Raises VitopsError.
        """
