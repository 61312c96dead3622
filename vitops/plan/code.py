"""The code digest of a stage: every definition that its code roots reach, by name.

Laws: an edit changes the digest exactly when it changes the normal form of a reached definition, or which definition a
name in it means; each reached definition is recorded under its dotted name, so that a change can be named. Of a reached
table of implementations those entries count that name a root.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vitops.plan.definitions import Package
from vitops.store import canonical
from vitops.store.stat_memo import StatMemo

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class CodeDigest:
    """``digest`` over ``definitions`` (dotted name -> SHA-256 of its normal form and the meaning of its names)."""

    digest: str
    definitions: dict[str, str]


def vitops_package(memo: StatMemo | None = None) -> Package:
    """The definitions of vitops itself, as they are on disk now."""
    return Package(PACKAGE, memo)


def code_digest(roots: Iterable[str], memo: StatMemo | None = None, *, package: Package | None = None) -> CodeDigest:
    """Follow ``roots`` (``module:attribute``, or a whole module) through ``package`` (by default vitops, read now).

    Raises VitopsError for a root that does not exist and for a file that does not parse.
    """
    package, roots = package or vitops_package(memo), list(roots)
    waiting = [name for root in roots for name in package.roots(root)]
    definitions: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name not in definitions:
            node = package.definition(name)
            chosen = {key: value for key, value in node.table.items() if value in roots}
            definitions[name] = canonical.digest([node.digest, chosen]) if chosen else node.digest
            waiting.extend(node.leads_to)
    counted = {name: digest for name, digest in sorted(definitions.items()) if digest}
    return CodeDigest(canonical.digest(counted), counted)
