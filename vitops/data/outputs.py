"""Folders that DVC tracks: made aside, sealed with a manifest, put into place at once.

Laws: a killed stage leaves no half-written output under the output's own name; every output folder holds a
``manifest.json`` that vouches for its other files, and its digest is that manifest's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitops.store import durable, manifest


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """An empty folder that becomes ``target`` when the block ends well; what stood there is removed then."""
    aside = target.with_name(f".{target.name}.tmp")
    durable.remove(aside)
    durable.make_folder(aside)
    try:
        with durable.actionable(target):
            yield aside
        durable.sync_tree(aside)
        durable.remove(target)
        durable.rename_dir(aside, target)
    finally:
        durable.remove(aside)


@contextmanager
def sealed(target: Path) -> Iterator[Path]:
    """Like ``replaced``, with a ``manifest.json`` over the folder's files."""
    with replaced(target) as folder:
        yield folder
        manifest.write(folder)
