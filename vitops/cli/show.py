"""``vitops show ARTIFACT``: one artifact, where its files are, and its receipt."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitops.cli.artifact import latest
from vitops.cli.console import emit
from vitops.cli.options import AsJson
from vitops.config.load import find_root, store_home
from vitops.lineage.data_folders import PATTERNS
from vitops.lineage.receipts import DATA_KINDS
from vitops.lineage.shared_ledger import open_ledger
from vitops.packaging.text import printable
from vitops.store import manifest
from vitops.store.artifacts import Store
from vitops.store.prefixes import resolve
from vitops.store.shared import open_store

if TYPE_CHECKING:
    from rich.console import Console

JSON = dict[str, Any]


def show(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="First digits of its digest (at least 6), or PIPELINE/STAGE.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show one artifact: kind, digest, a folder with its verified files, their SHA-256, and its latest receipt."""
    root = find_root(Path.cwd())
    document = describe(store_home(root), root, artifact)
    emit(document, as_json=as_json, render=lambda console: _render(document, console))


def describe(home: Path, root: Path, artifact: str) -> JSON:
    """What ``show`` prints; ``path`` is null where the bytes are no longer here.

    Raises UsageError for an unknown artifact, VerificationError for an altered one.
    """
    store = open_store(home)
    ledger = open_ledger(home, store.shared)
    receipt = latest(ledger, artifact) if "/" in artifact else None
    known = {entry.digest for entry in ledger.entries()} | set(store.digests())
    digest = receipt.digest if receipt else resolve(artifact, known, what="artifact")
    receipt = receipt or ledger.by_digest(digest)
    folder = _data_folder(root, digest) if receipt and receipt.kind in DATA_KINDS else _artifact_folder(store, digest)
    files = receipt.files if receipt else {entry.path: entry.sha256 for entry in store.manifest(digest)}
    return {
        "kind": receipt.ref.kind if receipt else None,
        "digest": digest,
        "path": str(folder) if folder else None,
        "files": [{"path": path, "sha256": sha256} for path, sha256 in files.items()],
        "receipt": {"sequence": receipt.sequence, "statement": receipt.statement} if receipt else None,
    }


def _artifact_folder(store: Store, digest: str) -> Path | None:
    return store.materialize(digest) if digest in store.digests() else None


def _data_folder(root: Path, digest: str) -> Path | None:
    """The data folder with that digest, every file of it hashed."""
    for pattern in PATTERNS:
        for folder in sorted(root.glob(pattern)):
            if (folder / manifest.NAME).is_file() and manifest.digest(manifest.read(folder)) == digest:
                manifest.check(folder)
                return folder
    return None


def _render(document: JSON, console: "Console") -> None:
    from rich.table import Table

    for name in ("kind", "digest", "path"):
        console.print(f"{name:<8}{printable(str(document[name]))}", soft_wrap=True)
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("file")
    table.add_column("sha256")
    for file in document["files"]:
        table.add_row(printable(file["path"]), file["sha256"])
    console.print(table)
    if document["receipt"]:
        _render_receipt(document["receipt"], console)


def _render_receipt(receipt: JSON, console: "Console") -> None:
    made = receipt["statement"]["predicate"]
    console.print(f"\nreceipt {receipt['sequence']}: stage {made['stage']} of {made['pipeline']}", style="bold")
    console.print(f"  by {printable(made['who'])} on {printable(made['host'])}, {made['when']['started']}")
    for role, digest in made["inputs"].items():
        console.print(f"  {role:<10}{digest}", soft_wrap=True)
