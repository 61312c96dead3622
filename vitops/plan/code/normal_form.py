"""A syntax tree as text without whatever cannot change behaviour.

Laws: comments, docstrings, formatting, names of locals, and the annotations of undecorated functions and of variables
leave the text unchanged; class-level annotations count (dataclasses and pydantic build behaviour out of them), and so
do those of decorated functions. Two trees with equal text behave equally.
"""

import ast
from typing import Any

from vitops.plan.code.local_names import renamed_locals
from vitops.plan.code.scopes import annotations

_IGNORED_FIELDS = frozenset({"annotation", "returns", "type_comment", "type_params", "kind", "ctx"})


def normal_form(node: ast.AST) -> str:
    """The syntax tree as text without whatever cannot change behaviour; equal in all Python versions we support."""
    pieces: list[str] = []
    _write(renamed_locals(node), pieces, in_class=False)
    return "".join(pieces)


def _write(node: Any, out: list[str], *, in_class: bool) -> None:
    if isinstance(node, ast.AnnAssign) and node.value is not None and not in_class:
        node = ast.Assign([node.target], node.value)
    if not isinstance(node, ast.AST):
        out.append(repr(node))
        return
    out.append(type(node).__name__)
    out.append("(")
    for field in node._fields:
        if field in _IGNORED_FIELDS and not (in_class and field == "annotation"):
            continue
        if field == "decorator_list":
            _write_list(annotations(node), out, in_class=False)
        value = getattr(node, field, None)
        if value is None or value == []:  # absent, or a field that only newer Python versions have
            continue
        out.append(field)
        out.append("=")
        if isinstance(value, list):
            _write_list(value, out, in_class=isinstance(node, ast.ClassDef) and field == "body")
        else:
            _write(value, out, in_class=False)
        out.append(",")
    out.append(")")


def _write_list(items: list[Any], out: list[str], *, in_class: bool) -> None:
    out.append("[")
    for item in items:
        if isinstance(item, ast.stmt) and (is_inert(item) or (not in_class and _only_annotates(item))):
            continue
        _write(item, out, in_class=in_class)
        out.append(";")
    out.append("]")


def is_inert(node: ast.stmt) -> bool:
    """Whether a statement does nothing when it is executed: ``pass``, a docstring, code for scripts and checkers."""
    if isinstance(node, ast.Pass):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If) and not node.orelse:
        return _never_runs_on_import(node.test)
    return False


def _never_runs_on_import(test: ast.expr) -> bool:
    return ast.unparse(test) in ("__name__ == '__main__'", "TYPE_CHECKING", "typing.TYPE_CHECKING")


def _only_annotates(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and node.value is None
