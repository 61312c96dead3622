"""``vitops lineage ARTIFACT``: the receipts from an artifact back to its dataset's source."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitops.cli.artifact import latest
from vitops.cli.console import emit
from vitops.cli.options import AsJson
from vitops.config.load import find_root, store_home
from vitops.lineage.shared_ledger import open_ledger
from vitops.lineage.trace import Node, trace
from vitops.store.shared import shared_objects

if TYPE_CHECKING:
    from rich.console import Console


def lineage(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="First digits of its digest (at least 6), or PIPELINE/STAGE.")
    ],
    as_json: AsJson = False,
) -> None:
    """Print the tree of receipts from an artifact back to the source digest of the dataset."""
    ledger = open_ledger(store_home(find_root(Path.cwd())), shared_objects())
    digest = latest(ledger, artifact).digest if "/" in artifact else ledger.find(artifact)
    tree = trace(ledger, digest)
    document = {"artifact": digest, "sources": tree.sources(), "receipts": tree.to_json()}
    emit(document, as_json=as_json, render=lambda console: _render(tree, console))


def _render(tree: Node, console: "Console") -> None:
    for depth, role, node, repeated in tree.walk():
        mark = " (above)" if repeated else ""
        name = f"{role}: " if role else ""
        console.print(f"{'  ' * depth}{name}{_label(node)}{mark}", soft_wrap=True)


def _label(node: Node) -> str:
    if node.receipt is None:
        return node.digest
    adopted = ", adopted" if node.receipt.adopted else ""
    return f"{node.receipt.stage} of {node.receipt.pipeline}, receipt {node.receipt.sequence}{adopted}  {node.digest}"
