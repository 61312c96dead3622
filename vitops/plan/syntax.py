"""What one source file defines, in a form that survives every edit that cannot change behaviour.

Laws: comments, docstrings, formatting and the annotations of functions and variables leave a summary unchanged;
class-level annotations count (dataclasses and pydantic build behaviour out of them), except in the configuration room,
where fields are declarations whose resolved values stand in the stage key already and only methods count. A summary is
plain JSON, so it can be kept on disk, and is a function of the file's text, the module's name and nothing else.
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from vitops.plan.scopes import Imports, bound_names, import_targets, references

Summary = dict[str, Any]

EFFECTS = "<module>"
"""Name under which a module's statements that are neither definitions nor imports are summed up."""

_PURE_DECORATORS = frozenset({"abc", "contextlib", "dataclasses", "enum", "functools", "pydantic", "torch", "typing"})
_IGNORED_FIELDS = frozenset({"annotation", "returns", "type_comment", "type_params", "kind", "ctx"})
_DOTTED = re.compile(r"\w+(\.\w+)+:\w+")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def summarise(source: str, *, module: str, is_package: bool, declarations: bool) -> Summary:
    """Digest and references of every module-level definition of ``source``.

    ``declarations`` says that class fields and type aliases are declarations only (the configuration room).
    Keys: ``definitions`` (name -> [digest, references]; the digest is empty where nothing counts), ``imports`` (bound
    name -> targets), ``stars`` (modules), ``loads`` (targets imported when the module is). Raises SyntaxError.
    """
    return _Summariser(module=module, is_package=is_package, declarations=declarations).run(ast.parse(source))


class _Summariser:
    def __init__(self, *, module: str, is_package: bool, declarations: bool) -> None:
        self.module, self.is_package, self.declarations = module, is_package, declarations
        self.imports: Imports = {}
        self.stars: list[str] = []
        self.loads: list[str] = []
        self.nodes: dict[str, list[ast.stmt]] = {}
        self.effects: list[ast.stmt] = []
        self.registered: list[str] = []

    def run(self, tree: ast.Module) -> Summary:
        for statement in tree.body:
            self._module_level(statement)
        definitions = {name: self._definition(nodes) for name, nodes in self.nodes.items()}
        for name in bound_names(self.effects):
            definitions.setdefault(name, ["", [EFFECTS]])
        for name, targets in self.imports.items():
            self._also_imported(definitions, name, targets)
        if self.effects or self.registered:
            digest, found = self._definition(self.effects)
            definitions[EFFECTS] = [_sha256(digest, *self.registered), sorted({*found, *self.registered})]
        return {"definitions": definitions, "imports": self.imports, "stars": self.stars, "loads": self.loads}

    def _also_imported(self, definitions: dict[str, list[Any]], name: str, targets: list[str]) -> None:
        """A name with several origins (an import under ``try``, a stand-in under ``except``) may mean each."""
        if name in definitions:
            definitions[name][1] = sorted({*definitions[name][1], *targets})
        elif len(targets) > 1 and any(target.split(":")[1] for target in targets):
            definitions[name] = [_sha256(*targets), sorted(targets)]

    def _module_level(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node)
        elif isinstance(node, _DEFINITIONS):
            self._define([node.name], node)
            if any(self._registers(decorator) for decorator in node.decorator_list):
                self.registered.append(node.name)
        elif (names := _assigned(node)) is not None:
            self._define(names, node)
        elif not _is_inert(node):
            self._effect(node)

    def _define(self, names: Iterable[str], node: ast.stmt) -> None:
        for name in names:
            self.nodes.setdefault(name, []).append(node)

    def _effect(self, node: ast.stmt) -> None:
        self.effects.append(node)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                self._import(inner)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for bound, target in import_targets(node, module=self.module, is_package=self.is_package):
            self.loads.append(target)
            if bound == "*":
                self.stars.append(target.rstrip(":"))
            else:
                self.imports.setdefault(bound, []).append(target)

    def _registers(self, decorator: ast.expr) -> bool:
        """Whether a decorator may put its function into a table: any but those known to only wrap it."""
        while isinstance(decorator, ast.Call | ast.Attribute):
            decorator = decorator.func if isinstance(decorator, ast.Call) else decorator.value
        if not isinstance(decorator, ast.Name):
            return True
        targets = self.imports.get(decorator.id, [])
        return not targets or any(target.split(":")[0].split(".")[0] not in _PURE_DECORATORS for target in targets)

    def _definition(self, nodes: list[ast.stmt]) -> list[Any]:
        counted = [node for node in map(self._undeclared, nodes) if node is not None]
        if not counted:
            return ["", []]
        found: set[str] = set()
        for node in counted:
            found |= references(node, module=self.module, is_package=self.is_package)
        return [_sha256(*(normal_form(node) for node in counted)), sorted(found)]

    def _undeclared(self, node: ast.stmt) -> ast.stmt | None:
        """The part of a definition that counts: no table of implementations, of which the chosen one is a root itself,
        and in the configuration room neither fields nor type aliases.
        """
        if isinstance(node, ast.Assign | ast.AnnAssign) and _is_table(node.value):
            return None
        if not self.declarations:
            return node
        if isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, _DEFINITIONS)]
            return ast.ClassDef(
                name=node.name,
                bases=node.bases,
                keywords=node.keywords,
                body=list(methods),
                decorator_list=node.decorator_list,
            )
        return None if isinstance(node, ast.Assign) and _is_type(node.value) else node


def normal_form(node: ast.AST) -> str:
    """The syntax tree as text without whatever cannot change behaviour; equal in all Python versions we support."""
    pieces: list[str] = []
    _write(node, pieces, in_class=False)
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
        if isinstance(item, ast.stmt) and (_is_inert(item) or (not in_class and _only_annotates(item))):
            continue
        _write(item, out, in_class=in_class)
        out.append(";")
    out.append("]")


def _is_inert(node: ast.stmt) -> bool:
    if isinstance(node, ast.Pass):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If) and not node.orelse:
        return _never_runs_on_import(node.test)
    return False


def _never_runs_on_import(test: ast.expr) -> bool:
    return ast.unparse(test) in ("__name__ == '__main__'", "TYPE_CHECKING", "typing.TYPE_CHECKING")


def _is_type(value: ast.expr) -> bool:
    """``Annotated[...]``, ``Literal[...]``, ``A | B``."""
    return isinstance(value, ast.Subscript) or (isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr))


def _is_table(value: ast.expr | None) -> bool:
    """``{"name": "pkg.mod:attribute", ...}``, so that one more entry changes nothing for the others."""
    if not isinstance(value, ast.Dict) or not value.values:
        return False
    texts = [item.value for item in value.values if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return len(texts) == len(value.values) and all(_DOTTED.fullmatch(text) for text in texts)


def _only_annotates(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and node.value is None


def _assigned(node: ast.stmt) -> list[str] | None:
    """Names that a plain module-level assignment binds; None for any other statement."""
    if isinstance(node, ast.Assign):
        targets = list(_flat(node.targets))
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    elif type(node).__name__ == "TypeAlias":  # Python 3.12
        return []
    else:
        return None
    return [item.id for item in targets if isinstance(item, ast.Name)] if all(map(_is_name, targets)) else None


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def _flat(targets: Iterable[ast.expr]) -> Iterator[ast.expr]:
    for target in targets:
        if isinstance(target, ast.Tuple | ast.List):
            yield from _flat(target.elts)
        else:
            yield target


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
