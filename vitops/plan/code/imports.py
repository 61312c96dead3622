"""What import statements bind, as dotted targets.

A target is ``module:attribute``, or ``module:`` for the module itself; relative modules are made absolute.
"""

import ast
from collections.abc import Iterator

Imports = dict[str, list[str]]
"""Bound name -> targets (several after ``import a.b, a.c``, or where an import stands in two branches)."""


def import_targets(node: ast.Import | ast.ImportFrom, *, module: str, is_package: bool) -> Iterator[tuple[str, str]]:
    """(bound name, target) pairs of an import statement, with relative modules made absolute."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0], f"{alias.name}:"
        return
    source = _absolute(node, module=module, is_package=is_package)
    if source == "__future__":
        return
    for alias in node.names:
        yield alias.asname or alias.name, f"{source}:" if alias.name == "*" else f"{source}:{alias.name}"


def imported(name: str, chain: list[str], targets: list[str]) -> list[str]:
    """Targets that ``name.chain`` means where ``name`` was bound by imports of ``targets``."""
    found, plain = [], False
    for target in targets:
        module, attribute = target.split(":")
        if attribute or module.split(".")[0] != name:
            found.append(f"{module}:{'.'.join([attribute, *chain] if attribute else chain)}")
            continue
        plain, rest = True, module.split(".")[1:]
        if chain[: len(rest)] == rest:
            found.append(f"{module}:{'.'.join(chain[len(rest) :])}")
    return found if found or not plain else [f"{name}:{'.'.join(chain)}"]


def _absolute(node: ast.ImportFrom, *, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, node.module] if node.module else base)
