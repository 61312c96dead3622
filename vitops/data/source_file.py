"""Where a dataset's source lies, and which bytes it is."""

from pathlib import Path

from vitops.config.datasets import ArchiveSource, ArraysSource, FolderSource
from vitops.errors import UsageError
from vitops.store import canonical, manifest
from vitops.store.stat_memo import StatMemo

AnySource = ArraysSource | ArchiveSource | FolderSource
_WHAT = {"arrays": "the .npz file", "archive": "the archive of class folders", "folder": "the folder of class folders"}


def locate(root: Path, dataset: str, source: AnySource) -> Path:
    """The source's path. Raises UsageError that says which key names it and where to put the data."""
    key = f"pipelines.yaml: datasets.{dataset}.source.path"
    if Path(source.path).is_absolute():
        raise UsageError(f"{key} must be relative to the project: link the data to data/raw/ and name that path")
    path = root / source.path
    if not path.exists():
        raise UsageError(
            f"{key} names {source.path}, which is not there: copy or link {_WHAT[source.kind]} to {source.path} "
            f"in {root}, or correct the key"
        )
    return path


def digest(path: Path, memo: StatMemo) -> str:
    """SHA-256 of the file, or of the sorted (path, size, SHA-256) list of a folder's files; trusts stat records."""
    if path.is_dir():
        return manifest.digest(manifest.scan(path, hash_file=lambda file: hashed(file, memo)))
    return hashed(path, memo)


def hashed(file: Path, memo: StatMemo) -> str:
    """SHA-256 of one file, remembered by its stat record."""
    return memo.value("sha256", file, canonical.sha256_file)
