"""What one source file defines, in a form that survives every edit that cannot change behaviour.

Laws: comments, docstrings, formatting, names of locals and the annotations of undecorated functions and of variables
leave a summary unchanged; class-level annotations count (dataclasses and pydantic build behaviour out of them), and
so do those of decorated functions. In the configuration room a section's fields are declarations whose resolved
values stand in the stage key already: they make a definition of their own (``Name<fields>``), which only code that
fills a section by itself reaches. Statements count in their order where it can matter: a name bound twice, or changed
by a statement of the module, is told apart by how often before. A summary is plain JSON, so it can be kept on disk,
and is a function of the file's text, the module's name and nothing else.
"""

import ast
import builtins
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from vitops.plan.local_names import renamed_locals
from vitops.plan.scopes import (
    CALLS,
    LOADS,
    WHOLE_MODULE,
    Imports,
    annotations,
    bound_names,
    called_on_import,
    dotted,
    import_targets,
    references,
)

Summary = dict[str, Any]

EFFECTS = "<module>"
"""Name under which a module's statements that are neither definitions nor imports are summed up."""
FIELDS = "<fields>"
"""Ending of the definition that holds the fields of a configuration section."""

_MUTATORS = frozenset({"__import__", "delattr", "eval", "exec", "import_module", "setattr"})
"""Calls that change something from within an assignment, whatever module they come from."""
_PLAIN_BASES = frozenset({"enum", "typing"})
"""Modules whose classes make a class of constants, not a configuration section."""
_TYPE_FORMS = frozenset(
    {"Annotated", "ClassVar", "Literal", "Optional", "Union", "dict", "list", "set", "tuple", "type"}
)
_PURE_DECORATORS = frozenset({"abc", "contextlib", "dataclasses", "enum", "functools", "pydantic", "torch", "typing"})
_IGNORED_FIELDS = frozenset({"annotation", "returns", "type_comment", "type_params", "kind", "ctx"})
_DOTTED = re.compile(r"\w+(\.\w+)+:\w+")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def summarise(source: str, *, module: str, is_package: bool, declarations: bool) -> Summary:
    """Digest and references of every module-level definition of ``source``.

    ``declarations`` says that the fields of sections and type aliases are declarations only (the configuration room).
    Keys: ``definitions`` (name -> [digest, references]; the digest is empty where nothing counts), ``imports`` (bound
    name -> targets), ``stars`` (modules), ``loads`` (targets imported when the module is), ``on_import`` (name ->
    what its definition calls then), ``bases`` (class -> chains; empty-named base where a hook sees subclasses),
    ``tables`` (name -> key -> dotted name of an implementation). Raises SyntaxError.
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
        self.bases: dict[str, list[str]] = {}
        self.tables: dict[str, dict[str, str]] = {}
        self.marks: dict[ast.stmt, list[str]] = {}

    def run(self, tree: ast.Module) -> Summary:
        for statement in tree.body:
            self._module_level(statement)
        self._mark_order(tree.body)
        definitions = {name: self._definition(nodes) for name, nodes in self.nodes.items()}
        definitions |= {name + FIELDS: fields for name in self.nodes if (fields := self._fields(self.nodes[name]))}
        for name in bound_names(self.effects):
            definitions.setdefault(name, ["", [EFFECTS]])
        for name, targets in self.imports.items():
            self._also_imported(definitions, name, targets)
        if self.effects or self.registered:
            digest, found = self._definition(self.effects)
            definitions[EFFECTS] = [_sha256(digest, *self.registered), sorted({*found, *self.registered})]
        return {
            "definitions": definitions,
            "imports": self.imports,
            "stars": self.stars,
            "loads": self.loads,
            "on_import": self._on_import(),
            "bases": self.bases,
            "tables": self.tables,
        }

    def _on_import(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, nodes in self.nodes.items():
            called = {chain for node in nodes for chain in self._called(node)}
            if called:
                found[name] = sorted(called)
        return found

    def _called(self, node: ast.stmt) -> set[str]:
        left = self._undeclared(node)
        return set() if left is None else called_on_import(left, module=self.module, is_package=self.is_package)

    def _mark_order(self, body: list[ast.stmt]) -> None:
        """Tell statements apart by how often a name that they use on import was bound or changed before them."""
        effects = set(self.effects)
        bound = {node: self._binds(node) for node in body}
        touched = {node: self._roots(node) if node in effects else set() for node in body}
        times = Counter(name for names in bound.values() for name in names)
        changed = {name for names in touched.values() for name in names}
        unstable = {name for name, count in times.items() if count > 1 or name in changed}
        before: Counter[str] = Counter()
        for node in body if unstable else []:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                self.marks[node] = sorted(f"{name}@{before[name]}" for name in self._roots(node) & unstable)
            before.update(bound[node] | touched[node])

    def _binds(self, node: ast.stmt) -> set[str]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            return {name for name, _ in import_targets(node, module=self.module, is_package=self.is_package)}
        return bound_names([node])

    def _roots(self, node: ast.stmt) -> set[str]:
        """Names of the module that a statement uses while it is executed; the body of a function is not."""
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_inert(node):
            return set()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            values = [*node.args.defaults, *node.args.kw_defaults, *node.decorator_list]
            parts: list[ast.AST] = [item for item in values if item is not None]
        else:
            parts = [node]
        found = {reference for part in parts for reference in self._references(part)}
        return {reference.lstrip(CALLS).split(".")[0] for reference in found if ":" not in reference} - {WHOLE_MODULE}

    def _references(self, node: ast.AST) -> set[str]:
        return references(node, module=self.module, is_package=self.is_package)

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
            if isinstance(node, ast.ClassDef):
                self.bases[node.name] = _bases(node)
        elif (names := _assigned(node)) is not None and not _MUTATORS & {
            chain.split(".")[-1] for chain in self._called(node)
        }:
            self._define(names, node)
            self._table(names, node)
        elif not _is_inert(node):
            self._effect(node)

    def _define(self, names: Iterable[str], node: ast.stmt) -> None:
        for name in names:
            self.nodes.setdefault(name, []).append(node)

    def _table(self, names: list[str], node: ast.stmt) -> None:
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict) and _is_table(value):
            entries = zip(value.keys, value.values, strict=True)
            table = {normal_form(key): str(getattr(item, "value", "")) for key, item in entries if key is not None}
            for name in names:
                self.tables.setdefault(name, {}).update(table)

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
        if "library" in (dotted(decorator.func if isinstance(decorator, ast.Call) else decorator) or []):
            return True  # torch.library: an operator is called by its name
        while isinstance(decorator, ast.Call | ast.Attribute):
            decorator = decorator.func if isinstance(decorator, ast.Call) else decorator.value
        if not isinstance(decorator, ast.Name):
            return True
        targets = self.imports.get(decorator.id, [])
        return not targets or any(target.split(":")[0].split(".")[0] not in _PURE_DECORATORS for target in targets)

    def _definition(self, nodes: list[ast.stmt]) -> list[Any]:
        counted = [(node, left) for node in nodes if (left := self._undeclared(node)) is not None]
        if not counted:
            return ["", []]
        found: set[str] = set()
        for _, left in counted:
            found |= self._references(left)
        texts = [" ".join([normal_form(left), *self.marks.get(node, [])]) for node, left in counted]
        return [_sha256(*texts), sorted(found)]

    def _fields(self, nodes: list[ast.stmt]) -> list[Any] | None:
        """The fields of a section: for whoever calls it; then those of its bases and of sections in it count too."""
        fields = [item for node in nodes for item in self._declared(node)]
        if not fields and not any(isinstance(node, ast.ClassDef) and self._is_section(node) for node in nodes):
            return None
        whole = ast.ClassDef(name="", bases=[], keywords=[], body=fields, decorator_list=[])
        inherited = {chain for node in nodes if isinstance(node, ast.ClassDef) for chain in _bases(node)}
        found = {item for item in self._references(whole) | inherited if not item.startswith((LOADS, CALLS))}
        return [_sha256(normal_form(whole)) if fields else "", sorted(found | {f"{CALLS}{item}" for item in found})]

    def _declared(self, node: ast.stmt) -> list[ast.stmt]:
        """The statements of a class that only declare a field of a section."""
        if not isinstance(node, ast.ClassDef) or not self._is_section(node):
            return []
        return [
            item for item in node.body if isinstance(item, ast.AnnAssign) and not _names(item.annotation, "ClassVar")
        ]

    def _is_section(self, node: ast.ClassDef) -> bool:
        """A class of the configuration room with a base that may be pydantic's: fields are declarations there."""
        if not self.declarations or node.decorator_list or not node.bases:
            return False
        origins = {target for base in _bases(node) for target in self.imports.get(base.split(".")[0], [base])}
        return not any(target.split(":")[0].split(".")[0] in _PLAIN_BASES for target in origins)

    def _undeclared(self, node: ast.stmt) -> ast.stmt | None:
        """The part of a definition that counts: no table of implementations, of which the chosen one is a root itself,
        and in the configuration room neither fields nor type aliases.
        """
        if isinstance(node, ast.Assign | ast.AnnAssign) and _is_table(node.value):
            return None
        if isinstance(node, ast.ClassDef) and (fields := self._declared(node)):
            return ast.ClassDef(
                name=node.name,
                bases=node.bases,
                keywords=node.keywords,
                body=[item for item in node.body if item not in fields],
                decorator_list=node.decorator_list,
            )
        alias = self.declarations and isinstance(node, ast.Assign) and self._is_type(node.value)
        return None if alias else node

    def _is_type(self, value: ast.expr) -> bool:
        """``Annotated[...]``, ``Literal[...]``, ``A | B`` of types: what only annotations and validation read."""
        if isinstance(value, ast.Subscript):
            return bool(_TYPE_FORMS & set((dotted(value.value) or [""])[-1:]))
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
            return self._is_type(value.left) and self._is_type(value.right)
        if isinstance(value, ast.Name):
            nodes = self.nodes.get(value.id, [])
            constant = any(isinstance(node, ast.Assign | ast.AnnAssign) and not self._aliases(node) for node in nodes)
            return not constant and (bool(nodes) or value.id in self.imports or hasattr(builtins, value.id))
        return isinstance(value, ast.Constant) and value.value is None

    def _aliases(self, node: ast.Assign | ast.AnnAssign) -> bool:
        return isinstance(node.value, ast.Subscript | ast.BinOp) and self._is_type(node.value)


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


def _names(annotation: ast.expr, name: str) -> bool:
    return any(
        name in (dotted(item) or []) for item in ast.walk(annotation) if isinstance(item, ast.Name | ast.Attribute)
    )


def _bases(node: ast.ClassDef) -> list[str]:
    """Base classes as chains, and an empty one where defining a subclass runs code: a hook, a metaclass."""
    chains = [".".join(chain) for base in node.bases if (chain := dotted(_generic(base)))]
    hooked = any(isinstance(item, ast.FunctionDef) and item.name == "__init_subclass__" for item in node.body)
    looks = any(isinstance(item, ast.Attribute) and item.attr == "__subclasses__" for item in ast.walk(node))
    return [*chains, *([""] if hooked or looks or node.keywords else [])]


def _generic(base: ast.expr) -> ast.expr:
    return base.value if isinstance(base, ast.Subscript) else base


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
    return sorted(bound_names([node])) if all(map(_is_name, targets)) else None


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
