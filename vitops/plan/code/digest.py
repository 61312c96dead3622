"""The code digest of a stage: every definition that its code roots reach, by name.

Laws: an edit changes the digest exactly when it changes the normal form of a reached definition, or which definition a
name in it means; each reached definition is recorded under its dotted name, so that a change can be named. Of a reached
table of implementations those entries count that name a root.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vitops.plan.code.definitions import Definition, Package
from vitops.store import canonical
from vitops.store.stat_memo import StatMemo

PACKAGE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class CodeDigest:
    """``digest`` over ``definitions``: dotted name -> SHA-256 of its normal form and the meaning of its names.

    A member of a class that is split stands under ``module.Class::member``.
    """

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
    definitions: dict[str, str] = {}
    for name, node in _reached(package, [name for root in roots for name in package.roots(root)]).items():
        chosen = {key: value for key, value in node.table.items() if value in roots}
        definitions[name] = canonical.digest([node.digest, chosen]) if chosen else node.digest
    counted = {name: digest for name, digest in sorted(definitions.items()) if digest}
    return CodeDigest(canonical.digest(counted), counted)


def _reached(package: Package, names: list[str]) -> dict[str, Definition]:
    reached: dict[str, Definition] = {}
    waiting = names
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached[name] = package.definition(name)
            waiting.extend(reached[name].leads_to)
        if not waiting:
            waiting = [name for name in _given(reached) if name not in reached]
    return reached


def _given(reached: Mapping[str, Definition]) -> Iterator[str]:
    """What is there only because something that is reached mentions an attribute."""
    given = [(mention, names) for node in reached.values() for mention, names in node.given.items()]
    wanted = {mention for mention, _ in given}
    mentioned = {mention for node in reached.values() for mention in wanted & node.mentions}
    for mention, names in given:
        if mention in mentioned:
            yield from names
