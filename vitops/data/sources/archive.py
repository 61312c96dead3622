"""Samples from a tar or zip of class folders, read in place: nothing is ever extracted to disk.

Refused: links, devices, sparse and encrypted members, paths that leave the archive, members above 64 MiB.
"""

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from vitops.config.datasets import ArchiveSource
from vitops.data.sources.items import MAX_BYTES, Item, Reader, item, safe_path, settled
from vitops.errors import UsageError, VitopsError


class ArchiveReader:
    """Opens the archive that ``config.path`` names; a link to it reads the same."""

    def __init__(self, config: ArchiveSource, root: Path) -> None:
        self._path = root / config.path
        self._name = config.path
        self._reader: TarReader | ZipReader | None = None

    def __enter__(self) -> Reader:
        try:
            if zipfile.is_zipfile(self._path):
                self._reader = ZipReader(self._path)
            else:
                self._reader = TarReader(self._path)
        except (tarfile.TarError, zipfile.BadZipFile, OSError) as error:
            raise VitopsError(
                f"{self._name} cannot be read as an uncompressed tar or a zip ({error}): "
                "decompress it (gunzip, unxz) or make it again"
            ) from error
        return self

    def __exit__(self, *exc: object) -> None:
        if self._reader is not None:
            self._reader.close()

    def items(self) -> list[Item]:
        """All samples, sorted by path."""
        assert self._reader is not None, "items() is called inside the with block"
        try:
            return settled(*self._reader.scan())
        except UsageError as error:
            raise VitopsError(f"{self._name}: {error}") from error
        except (tarfile.TarError, zipfile.BadZipFile) as error:
            raise VitopsError(f"{self._name} is damaged ({error}): copy or download it again") from error


class TarReader:
    """Random access into an uncompressed tar through the offsets of its members."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, mode="r:")  # noqa: SIM115 - closed by close()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close both handles."""
        os.close(self._descriptor)
        self._tar.close()

    def scan(self) -> tuple[list[Item], list[str]]:
        """(items, folders)."""
        items: list[Item] = []
        folders: list[str] = []
        for member in self._tar:
            path = safe_path(member.name)
            if member.isdir():
                folders.append(path)
            elif found := self._item(path, member):
                items.append(found)
        if os.pread(self._descriptor, tarfile.BLOCKSIZE, self._tar.offset) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no end of the archive after {len(items)} samples")  # tarfile itself just stops
        return items, folders

    def _item(self, path: str, member: tarfile.TarInfo) -> Item | None:
        if not member.isreg() or member.issparse():
            raise UsageError(f"member {path} is a link, a device or sparse: replace it by a regular file")
        _refuse_large(path, member.size)
        return item(path, self._loader(path, member.offset_data, member.size))

    def _loader(self, path: str, offset: int, size: int) -> Callable[[], bytes]:
        def read() -> bytes:
            data = os.pread(self._descriptor, size, offset)
            if len(data) != size:
                raise VitopsError(f"{path}: the archive ends in the middle of this member: copy or download it again")
            return data

        return read


class ZipReader:
    """Members of a zip, decompressed one at a time and never beyond their declared size."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()

    def scan(self) -> tuple[list[Item], list[str]]:
        """(items, folders)."""
        items: list[Item] = []
        folders: list[str] = []
        for member in self._zip.infolist():
            path = safe_path(member.filename)
            if member.is_dir():
                folders.append(path)
            elif found := self._item(path, member):
                items.append(found)
        return items, folders

    def _item(self, path: str, member: zipfile.ZipInfo) -> Item | None:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise UsageError(f"member {path} is a link or a device: replace it by a regular file")
        if member.flag_bits & 1:
            raise UsageError(f"member {path} is encrypted: make the archive again without a password")
        _refuse_large(path, member.file_size)
        return item(path, self._loader(path, member))

    def _loader(self, path: str, member: zipfile.ZipInfo) -> Callable[[], bytes]:
        def read() -> bytes:
            try:
                with self._zip.open(member) as stream:
                    return stream.read(MAX_BYTES + 1)
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
                raise VitopsError(f"{path}: this member is damaged ({error}): make the zip again") from error

        return read


def _refuse_large(path: str, size: int) -> None:
    if size > MAX_BYTES:
        raise UsageError(f"member {path} has {size} bytes, more than {MAX_BYTES}: scale the image down")
