"""From an artifact back to the source of its data, receipt by receipt.

Law: an input was there before what was made from it, so each step looks only at receipts with smaller numbers; that
ends every walk, even when a stage returns the very bytes it was given.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vitops.lineage.ledger import Ledger
from vitops.lineage.receipts import Receipt


@dataclass(frozen=True)
class Node:
    """An artifact, its receipt (None at a source, or where this ledger knows nothing), and what it was made from."""

    digest: str
    receipt: Receipt | None
    inputs: dict[str, "Node"]
    """Role -> node. An input that several stages share is one and the same node."""

    def walk(self) -> Iterator[tuple[int, str, "Node", bool]]:
        """Depth first: (depth, role, node, whether it was shown before; its inputs then are not repeated)."""
        yield from _walk(self, 0, "", set())

    def to_json(self) -> list[dict[str, Any]]:
        """Every artifact once, each after what was made from it: role -> digest under ``inputs``."""
        return [_json(node) for _, _, node, seen in self.walk() if not seen]

    def sources(self) -> list[str]:
        """SHA-256 of every source of data that the artifact goes back to, sorted."""
        receipts = [node.receipt for _, _, node, _ in self.walk() if node.receipt is not None]
        return sorted({digest for made in receipts if made.kind == "ingest" for digest in made.inputs.values()})


def trace(ledger: Ledger, digest: str) -> Node:
    """The tree behind an artifact, named by its digest or its first digits (at least 6).

    Raises UsageError, with the nearest digests, when no receipt is about such an artifact.
    """
    return _node(ledger, ledger.find(digest), None, {})


def _node(ledger: Ledger, digest: str, before: int | None, known: dict[int, Node]) -> Node:
    receipt = ledger.by_digest(digest, before=before)
    if receipt is None:
        return Node(digest, None, {})
    if receipt.sequence not in known:
        inputs = {
            role: _node(ledger, source, receipt.sequence, known) for role, source in sorted(receipt.inputs.items())
        }
        known[receipt.sequence] = Node(digest, receipt, inputs)
    return known[receipt.sequence]


def _walk(node: Node, depth: int, role: str, seen: set[str]) -> Iterator[tuple[int, str, Node, bool]]:
    repeated = node.digest in seen
    yield depth, role, node, repeated
    if not repeated:
        seen.add(node.digest)
        for name, source in node.inputs.items():
            yield from _walk(source, depth + 1, name, seen)


def _json(node: Node) -> dict[str, Any]:
    receipt = node.receipt
    return {
        "digest": node.digest,
        "stage": receipt and receipt.stage,
        "kind": receipt and receipt.kind,
        "pipeline": receipt and receipt.pipeline,
        "receipt": receipt and receipt.sequence,
        "adopted": receipt and receipt.adopted,
        "inputs": {role: source.digest for role, source in node.inputs.items()},
    }
