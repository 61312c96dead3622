"""One sample of a source, and the reading of its place from its path.

Laws: paths are POSIX, relative, NFC; two files never share a path; the layout is ``[.../][subset/]<class>/<file>``.
A file that is no image is refused unless it is known to be no sample, and then it is logged.
"""

import hashlib
import logging
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from vitops.errors import UsageError

log = logging.getLogger(__name__)

SUBSETS = ("train", "test")
EXTENSIONS = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png"}
MAX_BYTES = 64 << 20
"""Largest encoded sample."""
MAX_SAMPLES = 50_000_000
_JUNK_NAMES = {"thumbs.db", "desktop.ini"}
_SIDE_FILES = {".txt", ".md", ".csv", ".tsv", ".json", ".yaml", ".yml", ".html", ".pdf", ".mat"}


@dataclass(frozen=True)
class Item:
    """A sample: where it stands in its source and how to get its stored bytes."""

    path: str
    class_name: str
    subset: str
    """``train``, ``test`` or empty."""
    extension: str
    """``jpg`` or ``png``."""
    read: Callable[[], bytes]

    @property
    def key(self) -> str:
        """First 20 hex digits of SHA-256 over the UTF-8 path."""
        return hashlib.sha256(self.path.encode()).hexdigest()[:20]


class Reader(Protocol):
    """What every source offers. Use it as a context manager; items are readable inside it only."""

    def __enter__(self) -> "Reader": ...

    def __exit__(self, *exc: object) -> None: ...

    def items(self) -> list[Item]:
        """All samples, sorted by path. Raises UsageError or VitopsError for what cannot be a sample."""
        ...


def item(path: str, read: Callable[[], bytes]) -> Item | None:
    """The item at a relative path, or None for a file that is known to be no sample. Raises UsageError otherwise."""
    try:
        pure = PurePosixPath(unicodedata.normalize("NFC", path).encode().decode())
    except UnicodeEncodeError as error:
        raise UsageError(f"{path!r}: the name is not UTF-8: rename the file") from error
    if is_junk(pure):
        return None
    extension = EXTENSIONS.get(pure.suffix.lower())
    if extension is None:
        if pure.suffix.lower() in _SIDE_FILES or not pure.suffix:
            log.info("not a sample: %s", path)
            return None
        raise UsageError(f"{path}: only .jpg, .jpeg and .png images can be ingested: convert or remove this file")
    if len(pure.parts) < 2:
        raise UsageError(f"{path}: the image stands in no class folder: the layout is [train|test/]<class>/<file>")
    class_name = pure.parts[-2]
    subset = pure.parts[-3] if len(pure.parts) > 2 and pure.parts[-3] in SUBSETS else ""
    if class_name in SUBSETS:
        raise UsageError(f"{path}: the image stands in no class folder: the layout is {class_name}/<class>/<file>")
    return Item(str(pure), class_name, subset, extension, read)


def is_junk(path: PurePosixPath) -> bool:
    """Hidden files and what file managers leave behind."""
    hidden = any(part.startswith(".") and part != "." for part in path.parts)
    return hidden or "__MACOSX" in path.parts or path.name.lower() in _JUNK_NAMES


def safe_path(name: str) -> str:
    """The member's relative path without leading ``./``. Raises UsageError for one that leaves its archive."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
        raise UsageError(f"member {name!r} would leave its folder: make the archive again with relative paths")
    return str(pure)


def settled(found: Sequence[Item], folders: Iterable[str]) -> list[Item]:
    """The items sorted by path, after checking that no two share a path or key and that no class folder is empty.

    ``folders``: every folder of the source. Raises UsageError.
    """
    items = sorted(found, key=lambda one: one.path)
    if not items:
        raise UsageError("the source holds no .jpg, .jpeg or .png image in a class folder")
    if len(items) > MAX_SAMPLES:
        raise UsageError(f"the source holds {len(items)} images, more than {MAX_SAMPLES}")
    _refuse_collisions(items)
    _refuse_empty_classes(items, folders)
    return items


def class_order(names: Iterable[str]) -> list[str]:
    """Class names in label order: by number if all are numbers, else by code point."""
    unique = sorted(set(names))
    if all(name.isascii() and name.isdigit() for name in unique):
        return sorted(unique, key=lambda name: (int(name), name))
    return unique


def _refuse_collisions(items: Sequence[Item]) -> None:
    by_key: dict[str, str] = {}
    for one in items:
        other = by_key.setdefault(one.key, one.path)
        if other is not one.path:
            what = (
                "appears twice (names are compared after Unicode NFC)"
                if other == one.path
                else f"has the key of {other}"
            )
            raise UsageError(f"{one.path}: {what}: rename or remove one of the two")


def _refuse_empty_classes(items: Sequence[Item], folders: Iterable[str]) -> None:
    """A folder without images and without folders inside stands where a class stands."""
    filled = {str(parent) for one in items for parent in PurePosixPath(one.path).parents}
    everything = {unicodedata.normalize("NFC", str(PurePosixPath(folder))) for folder in folders}
    inner = {str(PurePosixPath(folder).parent) for folder in everything}
    for folder in sorted(everything - filled - inner):
        if folder != "." and not is_junk(PurePosixPath(folder)):
            raise UsageError(f"class folder {folder} holds no image: add images to it or remove the folder")
