"""What one source file defines, in a form that survives every edit that cannot change behaviour.

Laws: what leaves the ``normal_form`` of a definition alone leaves a summary unchanged, and so do tables of
implementations and what only declares (``sections``). Statements count in their order where it can matter: a name bound
twice, or changed by a statement of the module, is told apart by how often before. A summary is plain JSON, so it can be
kept on disk, and is a function of the file's text, the module's name and nothing else.
"""

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from vitops.plan.code.imports import Imports, import_targets
from vitops.plan.code.members import MEMBER, Split, split
from vitops.plan.code.mentions import HOOK, mentions
from vitops.plan.code.normal_form import is_inert, normal_form
from vitops.plan.code.on_import import CHANGERS, bases, called_on_import
from vitops.plan.code.scopes import LOADS, MAKES, SUBCLASSES, WHOLE_MODULE, bound_names, references
from vitops.plan.code.sections import FIELDS, Sections, makes_itself

Summary = dict[str, Any]

EFFECTS = "<module>"
"""Name under which a module's statements that are neither definitions nor imports are summed up."""

_DOTTED = re.compile(r"\w+(\.\w+)+:\w+")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def summarise(source: str, *, module: str, is_package: bool, declarations: bool) -> Summary:
    """Digest and references of every module-level definition of ``source``.

    ``declarations`` says that the fields of sections and type aliases are declarations only (the configuration room).
    Keys: ``definitions`` (name -> [digest, references]; the digest is empty where nothing counts), ``imports`` (bound
    name -> targets), ``stars`` (modules), ``loads`` (targets imported when the module is), ``on_import`` (name ->
    what its definition calls then), ``bases`` (class -> chains; empty-named base where a hook sees subclasses),
    ``tables`` (name -> key -> dotted name of an implementation), ``classes`` (those that are split, with the names of
    their members), ``mentions`` (name of a definition -> its mentions). Raises SyntaxError.
    """
    return _Summariser(module=module, is_package=is_package, declarations=declarations).run(ast.parse(source))


class _Summariser:
    def __init__(self, *, module: str, is_package: bool, declarations: bool) -> None:
        self.module, self.is_package = module, is_package
        self.imports: Imports = {}
        self.stars: list[str] = []
        self.loads: list[str] = []
        self.nodes: dict[str, list[ast.stmt]] = {}
        self.sections = Sections(self.nodes, self.imports, declarations=declarations)
        self.effects: list[ast.stmt] = []
        self.bases: dict[str, list[str]] = {}
        self.tables: dict[str, dict[str, str]] = {}
        self.marks: dict[ast.stmt, list[str]] = {}
        self.mentions: dict[str, set[str]] = {}

    def run(self, tree: ast.Module) -> Summary:
        for statement in tree.body:
            self._module_level(statement)
        self._mark_order(tree.body)
        definitions = {name: self._definition(name, nodes) for name, nodes in self.nodes.items()}
        definitions |= {name + FIELDS: fields for name in self.nodes if (fields := self._fields(name))}
        classes = {name: parts for name in self.nodes if (parts := self._split(name)) is not None}
        for name, parts in classes.items():
            definitions |= self._parts(name, parts)
        for name in bound_names(self.effects):
            definitions.setdefault(name, ["", [EFFECTS]])
        for name, targets in self.imports.items():
            self._also_imported(definitions, name, targets)
        if self.effects:
            definitions[EFFECTS] = self._definition(EFFECTS, self.effects)
        return {
            "definitions": definitions,
            "imports": self.imports,
            "stars": self.stars,
            "loads": self.loads,
            "on_import": self._on_import(),
            "bases": self.bases,
            "tables": self.tables,
            "classes": {
                name: {"members": list(parts.members), "bound": parts.bound, "registry": parts.registry}
                for name, parts in classes.items()
            },
            "mentions": {name: sorted(found) for name, found in self.mentions.items() if found},
        }

    def _on_import(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, nodes in self.nodes.items():
            called = {chain for node in nodes for chain in self._called(node)}
            if called:
                found[name] = sorted(called)
        return found

    def _called(self, node: ast.stmt) -> set[str]:
        if (left := self._counted(node)) is None:
            return set()
        return called_on_import(left, module=self.module, is_package=self.is_package, imports=self.imports)

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
        if isinstance(node, ast.Import | ast.ImportFrom) or is_inert(node):
            return set()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            values = [*node.args.defaults, *node.args.kw_defaults, *node.decorator_list]
            parts: list[ast.AST] = [item for item in values if item is not None]
        else:
            parts = [node]
        found = {reference for part in parts for reference in self._references(part)}
        names = {reference.lstrip(MAKES).split(".")[0] for reference in found if ":" not in reference}
        return {name for name in names if not name.startswith((WHOLE_MODULE, SUBCLASSES))}

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
            if isinstance(node, ast.ClassDef):
                self.bases[node.name] = bases(node)
        elif (names := _assigned(node)) is not None and not CHANGERS & {
            chain.split(".")[-1] for chain in self._called(node)
        }:
            self._define(names, node)
            self._table(names, node)
        elif not is_inert(node):
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

    def _split(self, name: str) -> Split | None:
        nodes, elsewhere = self.nodes[name], {*self.imports, *bound_names(self.effects)}
        if len(nodes) > 1 or not isinstance(nodes[0], ast.ClassDef) or name in elsewhere or self.stars:
            return None
        if self.sections.is_section(nodes[0]):
            return None
        bound = {*self.nodes, *elsewhere}
        return split(nodes[0], package=self.module.split(".")[0], bound=bound, imports=self.imports)

    def _parts(self, name: str, parts: Split) -> dict[str, list[Any]]:
        """A definition for the shell and for each member; what its bases mean is followed apart."""
        text = " ".join([normal_form(parts.shell), *self.marks.get(self.nodes[name][0], [])])
        fields = [item for item in parts.shell.body if isinstance(item, ast.AnnAssign)]
        annotated = ast.ClassDef(name=name, bases=[], keywords=[], body=[*fields], decorator_list=[])
        found = {name: [_sha256(text), sorted(self._references(annotated))]}
        self.mentions[name] = mentions(annotated, imports=self.imports)
        for member, node in parts.members.items():
            found[name + MEMBER + member] = [_sha256(normal_form(node)), sorted(self._references(node))]
            self.mentions[name + MEMBER + member] = mentions(node, imports=self.imports, method=True)
        if parts.registry:  # what it does is known, and counts as no mention
            self.mentions[name + MEMBER + HOOK] = set()
        return found

    def _definition(self, name: str, nodes: list[ast.stmt]) -> list[Any]:
        counted = [(node, left) for node in nodes if (left := self._counted(node)) is not None]
        if not counted:
            return ["", []]
        found: set[str] = set()
        for node, left in counted:
            found |= self._references(left)
            self.mentions[name] = self.mentions.get(name, set()) | mentions(left, imports=self.imports)
            if self.sections.is_section(node) and makes_itself(node):
                found.add(f"{MAKES}{node.name}")
        texts = [" ".join([normal_form(left), *self.marks.get(node, [])]) for node, left in counted]
        return [_sha256(*texts), sorted(found)]

    def _counted(self, node: ast.stmt) -> ast.stmt | None:
        """The part of a definition that counts; of a table of implementations, the chosen one is a root itself."""
        if isinstance(node, ast.Assign | ast.AnnAssign) and _is_table(node.value):
            return None
        return self.sections.undeclared(node)

    def _fields(self, name: str) -> list[Any] | None:
        """The fields of a section: for whoever may make one; those of its bases and of sections in it as well."""
        classes = [node for node in self.nodes[name] if self.sections.is_section(node)]
        if not classes:
            return None
        fields = [item for node in classes for item in self.sections.fields(node)]
        whole = ast.ClassDef(name="", bases=[], keywords=[], body=fields, decorator_list=[])
        inherited = {chain for node in classes if isinstance(node, ast.ClassDef) for chain in bases(node) if chain}
        found = {item for item in self._references(whole) | inherited if not item.startswith((LOADS, MAKES))}
        self.mentions[name + FIELDS] = mentions(whole, imports=self.imports)
        return [_sha256(normal_form(whole)) if fields else "", sorted(found | {f"{MAKES}{item}" for item in found})]


def _is_table(value: ast.expr | None) -> bool:
    """``{"name": "pkg.mod:attribute", ...}``, so that one more entry changes nothing for the others."""
    if not isinstance(value, ast.Dict) or not value.values:
        return False
    texts = [item.value for item in value.values if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return len(texts) == len(value.values) and all(_DOTTED.fullmatch(text) for text in texts)


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
