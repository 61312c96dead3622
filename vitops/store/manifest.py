"""What a folder holds: the sorted list of its files' paths, sizes and SHA-256, whose own digest names the folder.

Laws: the digest depends on paths and bytes only (no order of creation, clock, owner or mode); an entry's path stays
inside its folder; a manifest file has one byte form, so any changed byte of it is noticed.
An artifact's manifest lies in the store; a data folder's or a checkpoint's lies inside it as ``manifest.json``.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from vitops.errors import VerificationError, VitopsError
from vitops.store import canonical, durable
from vitops.store.readable import readable

NAME = "manifest.json"
HEX64 = re.compile(r"[0-9a-f]{64}")
HashFile = Callable[[Path], str]


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file: POSIX path relative to the folder, size in bytes, SHA-256 (64 hex digits)."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        pure = PurePosixPath(self.path)
        inside = self.path == str(pure) != "." and not pure.is_absolute() and ".." not in pure.parts
        if not inside or "\0" in self.path:
            raise ValueError(f"{self.path!r} is not a path inside the folder")
        if type(self.size) is not int or self.size < 0:
            raise ValueError(f"{self.path}: size {self.size!r} is not a number of bytes")
        if not HEX64.fullmatch(self.sha256):
            raise ValueError(f"{self.path}: {self.sha256!r} is not a SHA-256")


def scan(folder: Path, *, hash_file: HashFile = canonical.sha256_file) -> list[FileEntry]:
    """Hash every file below the folder, except its own ``manifest.json``; sorted by path.

    Raises VitopsError for a link or a special file, whose bytes would not be the folder's own.
    """
    return sorted(_entry(folder, path, hash_file) for path in _files(folder) if path != NAME)


def scan_all(folder: Path) -> list[FileEntry]:
    """Like ``scan``, but a ``manifest.json`` counts as any other file (artifacts)."""
    return sorted(_entry(folder, path, canonical.sha256_file) for path in _files(folder))


def digest(entries: Iterable[FileEntry]) -> str:
    """SHA-256 of the canonical JSON of the sorted ``[{"path", "sha256", "size"}, ...]``."""
    return canonical.digest([asdict(entry) for entry in sorted(entries)])


def render(entries: Iterable[FileEntry]) -> bytes:
    """The bytes of a manifest file."""
    return canonical.pretty({"files": [asdict(entry) for entry in sorted(entries)]})


def parse(data: bytes) -> list[FileEntry]:
    """The entries of a manifest file. Raises ValueError unless the bytes are exactly those that ``render`` writes."""
    try:
        entries = [FileEntry(**item) for item in json.loads(data)["files"]]
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"not a manifest ({error})") from error
    if len({entry.path for entry in entries}) != len(entries) or render(entries) != data:
        raise ValueError("not in the form a manifest is written in")
    return entries


def write(folder: Path) -> str:
    """Hash the folder's files, write its ``manifest.json`` (durably, after its files), return the folder's digest."""
    entries = scan(folder)
    durable.sync_tree(folder)
    durable.write_bytes(folder / NAME, render(entries))
    return digest(entries)


def read(folder: Path) -> list[FileEntry]:
    """The entries that the folder's ``manifest.json`` claims, no file hashed; VerificationError if it is unreadable."""
    path = folder / NAME
    try:
        with readable(path):
            data = path.read_bytes()
        return parse(data)
    except FileNotFoundError as error:
        raise VerificationError(f"{folder} has no {NAME}: make the folder again.") from error
    except ValueError as error:
        raise VerificationError(f"{path} is altered: {error}. Make the folder again.") from error


def check(folder: Path, *, hash_file: HashFile = canonical.sha256_file) -> str:
    """The folder's digest, if all is as its ``manifest.json`` says; VerificationError names the first file that is not.

    ``hash_file`` may be one that remembers.
    """
    for path, sentence in differences(folder, hash_file=hash_file):
        raise VerificationError(f"{path}: {sentence} Make the folder {folder} again.")
    return digest(read(folder))


def differences(folder: Path, *, hash_file: HashFile = canonical.sha256_file) -> Iterator[tuple[Path, str]]:
    """Every file that is not as the folder's ``manifest.json`` says, with a sentence; nothing if all is well."""
    try:
        entries = read(folder)
    except VerificationError as error:
        yield folder / NAME, str(error)
        return
    known = {entry.path for entry in entries} | {NAME}
    for extra in sorted(set(_files(folder)) - known):
        yield folder / extra, "the manifest does not name this file."
    for entry in entries:
        if sentence := difference(folder / entry.path, entry, hash_file=hash_file):
            yield folder / entry.path, sentence


def difference(path: Path, entry: FileEntry, *, hash_file: HashFile = canonical.sha256_file) -> str | None:
    """A sentence when the file at ``path`` is not the entry's bytes, else None."""
    if not path.is_file():
        return f"the file is missing (expected SHA-256 {entry.sha256})."
    try:
        found = hash_file(path)
    except VerificationError as error:
        return str(error)
    if found == entry.sha256:
        return None
    return f"the file is altered (expected SHA-256 {entry.sha256}, found {found})."


def _files(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in [*names, *links]:
            yield Path(place, name).relative_to(folder).as_posix()


def _entry(folder: Path, name: str, hash_file: HashFile) -> FileEntry:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise VitopsError(f"{path} is a link or a special file: an artifact may hold regular files only.")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise VitopsError(f"{path!r}: a file name in an artifact must be valid UTF-8. Rename the file.") from error
    return FileEntry(name, path.stat().st_size, hash_file(path))
