"""What DVC keeps on disk, read without DVC: dvc.lock, the cache and a remote that is a local folder.

Why: importing DVC costs most of a second, and DVC never checks the bytes of its own objects. Its md5 tells which object
belongs where; whether an object is right is decided by hashing it, and by our own SHA-256 manifests.
"""

import configparser
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vitops.errors import UsageError
from vitops.store import canonical, durable, manifest
from vitops.store.manifest import FileEntry

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
JSON = dict[str, Any]


@dataclass(frozen=True)
class Lock:
    """One stage's entry in dvc.lock; None where DVC has not run it."""

    entry: JSON | None

    def dep(self, path: str) -> str | None:
        """Recorded md5 of a dependency."""
        return _md5_of(self.entry, "deps", path)

    def out(self, path: str) -> str | None:
        """Recorded md5 of an output."""
        return _md5_of(self.entry, "outs", path)


def _md5_of(entry: JSON | None, part: str, path: str) -> str | None:
    for one in (entry or {}).get(part) or []:
        if one["path"] == path:
            md5 = str(one.get("md5", ""))
            return md5 if _MD5.fullmatch(md5) else None
    return None


class DvcFiles:
    """The files of the DVC project at ``root`` as they are now; make a new one after DVC ran."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _stages(self) -> JSON:
        try:
            text = (self.root / "dvc.lock").read_bytes()
        except FileNotFoundError:
            return {}
        try:
            document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            stages: JSON = (document or {}).get("stages") or {}
        except (yaml.YAMLError, AttributeError) as error:
            raise UsageError(
                f"dvc.lock cannot be read ({' '.join(str(error).split())}). Resolve its conflict, or take the last "
                "version back with git; `dvc repro` makes a missing one again."
            ) from error
        return stages

    @cached_property
    def _config(self) -> configparser.ConfigParser:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read([self.root / ".dvc/config", self.root / ".dvc/config.local"], encoding="utf-8")
        return parser

    def lock(self, stage: str) -> Lock:
        """The entry of a stage instance, e.g. ``ingest@digits``."""
        return Lock(self._stages.get(stage))

    @cached_property
    def cache(self) -> Path:
        """The folder of DVC's own copies."""
        configured = self._config.get("cache", "dir", fallback="cache")
        return self.root / ".dvc" / configured / "files" / "md5"

    @cached_property
    def remote(self) -> Path | None:
        """The default remote, if it is a folder."""
        name = self._config.get("core", "remote", fallback=None)
        url = self._config.get(f"'remote \"{name}\"'", "url", fallback=None) if name else None
        if url is None or "://" in url:
            return None
        return self.root / ".dvc" / url / "files" / "md5"

    def intact(self, md5: str | None) -> Path | None:
        """An object in cache or remote whose bytes have that md5, or None."""
        if md5 is None:
            return None
        for store in (self.cache, self.remote):
            if store is not None and _is_intact(_object(store, md5), md5):
                return _object(store, md5)
        return None

    def listing(self, md5: str | None) -> dict[str, str] | None:
        """Path -> md5 of a folder's files, from its ``.dir`` object; None if no intact one is at hand."""
        found = self.intact(md5)
        if found is None:
            return None
        listed = {str(one["relpath"]): str(one["md5"]) for one in json.loads(found.read_bytes())}
        return listed if all(map(_MD5.fullmatch, listed.values())) else None

    def restorable(self, md5: str | None) -> dict[str, str] | None:
        """Folder below the output (``.`` for itself) -> digest by our manifests, if every byte can be restored.

        Every file must be named by a manifest, and its object must have the SHA-256 that the manifest states.
        """
        listing = self.listing(md5)
        if listing is None:
            return None
        found, vouched = {}, set()
        for path in (one for one in listing if Path(one).name == manifest.NAME):
            entries = self._entries(listing[path])
            folder = Path(path).parent
            if entries is None or not all(self._matches(listing, folder, entry) for entry in entries):
                return None
            vouched |= {path, *((folder / entry.path).as_posix() for entry in entries)}
            found[folder.as_posix()] = manifest.digest(entries)
        return found if vouched == set(listing) else None

    def remove_damaged(self, md5: str | None) -> list[Path]:
        """Delete the cache objects of an output that are not what their name says, so that DVC writes them anew."""
        if md5 is None:
            return []
        names = [md5]
        if md5.endswith(".dir") and _is_intact(_object(self.cache, md5), md5):
            names += (self.listing(md5) or {}).values()
        objects = {name: _object(self.cache, name) for name in names}
        damaged = [path for name, path in objects.items() if path.exists() and not _is_intact(path, name)]
        for path in damaged:
            durable.remove(path)
        return damaged

    def _entries(self, md5: str) -> list[FileEntry] | None:
        found = self.intact(md5)
        try:
            return manifest.parse(found.read_bytes()) if found else None
        except ValueError:
            return None

    def _matches(self, listing: dict[str, str], folder: Path, entry: FileEntry) -> bool:
        md5 = listing.get((folder / entry.path).as_posix())
        found = self.intact(md5) if md5 else None
        return found is not None and canonical.sha256_file(found) == entry.sha256


def _object(store: Path, md5: str) -> Path:
    if not _MD5.fullmatch(md5):
        raise ValueError(f"{md5!r} names no object of DVC's cache")
    return store / md5[:2] / md5[2:]


def _is_intact(path: Path, md5: str) -> bool:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "md5").hexdigest() == md5.removesuffix(".dir")
    except OSError:
        return False
