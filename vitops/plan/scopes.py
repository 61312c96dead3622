"""Which names of a definition come from outside it: Python's scoping rules, read off the syntax tree.

A reference is a dotted chain. ``a.b.c`` begins with a name of the enclosing module; ``pkg.mod:attr.x`` begins with an
import inside the function itself; ``!pkg.mod:attr`` is such an import without a use (the module is loaded); ``(`` in
front says that it is called; ``*`` means that the whole module may be used (``globals()``). Where the rules leave
doubt, a name counts as a reference: too many cost a needless run, too few a wrong hit.
"""

import ast
from collections.abc import Iterable, Iterator

Imports = dict[str, list[str]]
"""Bound name -> targets ``module:attribute`` (``module:`` for the module itself; several after ``import a.b, a.c``)."""

WHOLE_MODULE = "*"
LOADS = "!"
CALLS = "("

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_WRAPPERS = frozenset(
    {"abstractmethod", "cache", "cached_property", "classmethod", "contextmanager", "field_validator"}
)
_WRAPPERS |= {
    "inference_mode",
    "lru_cache",
    "model_validator",
    "no_grad",
    "property",
    "setter",
    "staticmethod",
    "wraps",
}
"""Decorators that do not read annotations."""

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def references(node: ast.AST, *, module: str, is_package: bool) -> set[str]:
    """Every chain that ``node`` (a module-level statement of ``module``) takes from outside itself."""
    collector = _Collector(module=module, is_package=is_package)
    collector.visit(node)
    return collector.found


def called_on_import(node: ast.stmt, *, module: str, is_package: bool) -> set[str]:
    """Chains that a definition calls, or decorates with, when its module is imported: bodies of functions run later."""
    collector = _Collector(module=module, is_package=is_package)
    for item in _run_on_import(node):
        if isinstance(item, ast.Call):
            collector.visit(item.func)
        elif isinstance(item, _DEFINITIONS):
            for decorator in item.decorator_list:
                collector.visit(decorator)
    return {reference for reference in collector.found if not reference.startswith((LOADS, CALLS))}


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
        if (chain := dotted(node)) is not None:
            self._use(chain[0], chain[1:])
        else:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0] if node.args else None
        if (called := dotted(node.func)) is not None:
            self._use(called[0], called[1:], mark=CALLS)
        if name in {"globals", "vars"} and first is None:
            self.found.add(WHOLE_MODULE)
        elif name in {"import_module", "__import__"} and isinstance(first, ast.Constant):
            self.found.add(f"{first.value!s}:")
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self._import(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._import(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
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
        self._visit_all(part for part in (node.target, node.value) if part is not None)
        if self._in_class:
            self._annotation(node.annotation)

    def _annotation(self, node: ast.expr) -> None:
        """A quoted annotation means the names in it: dataclasses and pydantic look them up."""
        self.visit(node)
        for item in ast.walk(node):
            if isinstance(item, ast.Constant) and isinstance(item.value, str):
                try:
                    self.visit(ast.parse(item.value, mode="eval").body)
                except SyntaxError:
                    continue

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
        for annotation in annotations(node):
            self._annotation(annotation)
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

    def _use(self, name: str, chain: list[str], *, mark: str = "") -> None:
        if name == "sys" and chain[:1] == ["modules"] and len(chain) > 1:  # sys.modules.get(...)
            self.found.add(WHOLE_MODULE)
        for names, imports in reversed(self._scopes):
            if name in imports:
                self.found |= {mark + target for target in imported(name, chain, imports[name])}
                return
            if name in names:
                return
        self.found.add(mark + ".".join([name, *chain]))

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)


def annotations(node: ast.AST) -> list[ast.expr]:
    """The annotations of a function whose decorator may dispatch by them; none where each only wraps."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or all(map(_wraps, node.decorator_list)):
        return []
    found = [item.annotation for item in _arguments(node.args)] + [node.returns]
    return [item for item in found if item is not None]


def dotted(node: ast.expr) -> list[str] | None:
    """``a.b.c`` as its names, or None for any other expression."""
    chain: list[str] = []
    while isinstance(node, ast.Attribute):
        chain.append(node.attr)
        node = node.value
    return [node.id, *chain[::-1]] if isinstance(node, ast.Name) else None


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


def _wraps(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (dotted(called) or [""])[-1] in _WRAPPERS


def _arguments(node: ast.arguments) -> list[ast.arg]:
    extra = [item for item in (node.vararg, node.kwarg) if item is not None]
    return [*node.posonlyargs, *node.args, *node.kwonlyargs, *extra]


def _own_statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _own_statements(ast.iter_child_nodes(node))


def _run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """``node`` and what is evaluated with it: of a function the decorators and defaults alone."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts: Iterable[ast.AST | None] = [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]
    elif isinstance(node, ast.Lambda):
        parts = [*node.args.defaults, *node.args.kw_defaults]
    else:
        parts = ast.iter_child_nodes(node)
    for part in parts:
        if part is not None:
            yield from _run_on_import(part)
