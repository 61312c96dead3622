"""Which names of a definition come from outside it: Python's scoping rules, read off the syntax tree.

A reference is a dotted chain. ``a.b.c`` begins with a name of the enclosing module; ``pkg.mod:attr.x`` begins with an
import inside the function itself; ``!pkg.mod:attr`` is such an import without a use (the module is loaded); ``*`` means
that the whole module may be used (``globals()``). Where the rules leave doubt, a name counts as a reference: too many
cost a needless run, too few a wrong hit.
"""

import ast
from collections.abc import Iterable, Iterator

Imports = dict[str, list[str]]
"""Bound name -> targets ``module:attribute`` (``module:`` for the module itself; several after ``import a.b, a.c``)."""

WHOLE_MODULE = "*"
LOADS = "!"

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def references(node: ast.AST, *, module: str, is_package: bool) -> set[str]:
    """Every chain that ``node`` (a module-level statement of ``module``) takes from outside itself."""
    collector = _Collector(module=module, is_package=is_package)
    collector.visit(node)
    return collector.found


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


def bound_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that these statements bind in their own scope (not inside functions, classes or comprehensions)."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            names.add(node.rest)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif not isinstance(node, ast.Lambda | _Comprehension):
            names |= bound_names(ast.iter_child_nodes(node))
        else:
            names |= {item.target.id for item in ast.walk(node) if isinstance(item, ast.NamedExpr)}
    return names


def _absolute(node: ast.ImportFrom, *, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, node.module] if node.module else base)


class _Collector(ast.NodeVisitor):
    def __init__(self, *, module: str, is_package: bool) -> None:
        self._module, self._is_package = module, is_package
        self._scopes: list[tuple[set[str], Imports]] = []
        self._in_class = False
        self.found: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self._use(node.id, [])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            chain.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._use(inner.id, chain[::-1])
        else:
            self.visit(inner)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0] if node.args else None
        if name in {"globals", "vars"} and first is None:
            self.found.add(WHOLE_MODULE)
        elif name in {"import_module", "__import__"} and isinstance(first, ast.Constant):
            self.found.add(f"{first.value!s}:")
        self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if self._in_class:  # becomes an attribute, which nobody can follow; a function's imports are in its scope
            targets = import_targets(node, module=self._module, is_package=self._is_package)
            self.found |= {target for _, target in targets}

    def visit_Subscript(self, node: ast.Subscript) -> None:
        value = node.value
        if isinstance(value, ast.Attribute) and value.attr == "modules" and getattr(value.value, "id", "") == "sys":
            self.found.add(f"{node.slice.value!s}:" if isinstance(node.slice, ast.Constant) else WHOLE_MODULE)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all([*node.decorator_list, *node.bases, *node.keywords])
        outer, self._in_class = self._in_class, True
        self._visit_all(node.body)
        self._in_class = outer

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        parts = [node.target, node.value, node.annotation if self._in_class else None]
        self._visit_all(part for part in parts if part is not None)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node, [node.elt])

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self._comprehension(node, [node.elt])

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node, [node.elt])

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node, [node.key, node.value])

    def _comprehension(self, node: _Comprehension, results: list[ast.expr]) -> None:
        self.visit(node.generators[0].iter)
        self._scopes.append((bound_names(part.target for part in node.generators), {}))
        self._visit_all([item for part in node.generators[1:] for item in (part.iter, *part.ifs)])
        self._visit_all([*node.generators[0].ifs, *results])
        self._scopes.pop()

    def _function(self, node: _Function) -> None:
        arguments = node.args
        defaults = [item for item in (*arguments.defaults, *arguments.kw_defaults) if item is not None]
        self._visit_all([*getattr(node, "decorator_list", []), *defaults])
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
        outer, self._in_class = self._in_class, False
        self._scopes.append(self._scope(arguments, body))
        self._visit_all(body)
        self._scopes.pop()
        self._in_class = outer

    def _scope(self, arguments: ast.arguments, body: list[ast.AST]) -> tuple[set[str], Imports]:
        names = {item.arg for item in _arguments(arguments)} | bound_names(body)
        imports: Imports = {}
        for item in _own_statements(body):
            if isinstance(item, ast.Global | ast.Nonlocal):
                names -= set(item.names)
            elif isinstance(item, ast.Import | ast.ImportFrom):
                for bound, target in import_targets(item, module=self._module, is_package=self._is_package):
                    imports.setdefault(bound, []).append(target)
                    self.found.add(f"{LOADS}{target}")
        return names, imports

    def _use(self, name: str, chain: list[str]) -> None:
        if name == "sys" and chain[:1] == ["modules"] and len(chain) > 1:  # sys.modules.get(...)
            self.found.add(WHOLE_MODULE)
        for names, imports in reversed(self._scopes):
            if name in imports:
                self.found |= set(imported(name, chain, imports[name]))
                return
            if name in names:
                return
        self.found.add(".".join([name, *chain]))

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)


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


def _arguments(node: ast.arguments) -> list[ast.arg]:
    extra = [item for item in (node.vararg, node.kwarg) if item is not None]
    return [*node.posonlyargs, *node.args, *node.kwonlyargs, *extra]


def _own_statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _own_statements(ast.iter_child_nodes(node))
