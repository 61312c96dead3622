"""Samples from a folder of class folders. The folder itself may be a link; links inside it are refused."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from vitops.config.datasets import FolderSource
from vitops.data.sources.items import MAX_BYTES, Item, Reader, is_junk, item, settled
from vitops.errors import UsageError, VitopsError


class FolderReader:
    """Walks the folder that ``config.path`` names."""

    def __init__(self, config: FolderSource, root: Path) -> None:
        self._top = root / config.path
        self._name = config.path

    def __enter__(self) -> Reader:
        if not self._top.is_dir():
            raise UsageError(f"{self._name} is no folder: use kind: archive for a tar or zip")
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def items(self) -> list[Item]:
        """All samples, sorted by path."""
        try:
            return settled(*self._scan())
        except UsageError as error:
            raise VitopsError(f"{self._name}: {error}") from error

    def _scan(self) -> tuple[list[Item], list[str]]:
        items: list[Item] = []
        folders: list[str] = []
        for place, inner, names in os.walk(self._top, onerror=_unreadable):
            here = PurePosixPath(Path(place).relative_to(self._top).as_posix())
            folders.extend(str(here / name) for name in inner)
            for name in (*names, *(one for one in inner if Path(place, one).is_symlink())):
                if found := self._item(str(here / name), Path(place, name)):
                    items.append(found)
        return items, folders

    def _item(self, path: str, file: Path) -> Item | None:
        if is_junk(PurePosixPath(path)):
            return None
        if file.is_symlink() or not file.is_file():
            raise UsageError(f"{path} is a link or no regular file: copy the file into its place")
        if file.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} has {file.stat().st_size} bytes, more than {MAX_BYTES}: scale the image down")
        return item(path, _loader(file))


def _loader(file: Path) -> Callable[[], bytes]:
    return file.read_bytes


def _unreadable(error: OSError) -> None:
    raise VitopsError(f"{error.filename} cannot be listed ({error.strerror}): give this user read access") from error
