"""Which names of a definition come from outside it: Python's scoping rules, read off the syntax tree.

A reference is a dotted chain. ``a.b.c`` begins with a name of the enclosing module; ``pkg.mod:attr.x`` begins with an
import inside the function itself; ``!pkg.mod:attr`` is such an import without a use (the module is loaded); ``(`` in
front says that an object may be made of it, for it is called or handed on, not just asked about; ``*`` means that the
whole module may be used (``globals()``), ``*op_`` whatever in it begins so; ``^`` that all subclasses of anything may
be. Where the rules leave doubt, a name counts as a reference: too many cost a needless run, too few a wrong hit.
"""

import ast
from collections.abc import Iterable, Iterator

from vitops.plan.code.imports import Imports, import_targets, imported

WHOLE_MODULE = "*"
SUBCLASSES = "^"
LOADS = "!"
MAKES = "("

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

_IMPORTERS = frozenset({"__import__", "import_module", "resolve_name"})
_ASKING = frozenset({("cast", 0), ("isinstance", 1), ("issubclass", 1)})
_EVALUATORS = frozenset({"eval", "exec"})
_LOOK_AROUND = frozenset({"__globals__", "f_globals"})
_TYPE_FORMS = frozenset(
    {"Annotated", "Callable", "Iterable", "Mapping", "Optional", "Sequence", "Union", "dict", "list", "tuple", "type"}
)
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def references(node: ast.AST, *, module: str, is_package: bool) -> set[str]:
    """Every chain that ``node`` (a module-level statement of ``module``) takes from outside itself."""
    collector = _Collector(module=module, is_package=is_package)
    collector.visit(node)
    return collector.found


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


class _Collector(ast.NodeVisitor):
    def __init__(self, *, module: str, is_package: bool) -> None:
        self._module, self._is_package = module, is_package
        self._scopes: list[tuple[set[str], Imports]] = []
        self._in_class = self._based = self._asked_about = False
        self.found: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self._use(node.id, [])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in _LOOK_AROUND:
            self.found.add(WHOLE_MODULE)
        elif node.attr == "__subclasses__":
            self.found.add(SUBCLASSES)
        if (chain := dotted(node)) is not None:
            self._use(chain[0], chain[1:])
        else:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0] if node.args else None
        if (name in {"globals", "vars"} and first is None) or (name in _EVALUATORS and isinstance(node.func, ast.Name)):
            self.found.add(WHOLE_MODULE)
        elif name in _IMPORTERS and isinstance(first, ast.Constant):
            self.found.add(str(first.value) if ":" in str(first.value) else f"{first.value!s}:")
        self._ask(node.func, asked=name == "model_validate" and _is_given(node))
        for number, argument in enumerate(node.args):
            self._ask(argument, asked=(name, number) in _ASKING)
        for keyword in node.keywords:
            self._ask(keyword.value, asked=keyword.arg == "bound")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        for operand in (node.left, node.right):
            self._ask(operand, asked=isinstance(node.op, ast.BitOr))

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        self._ask(node.cls, asked=True)
        self._visit_all([*node.patterns, *node.kwd_patterns])

    def _ask(self, node: ast.expr, *, asked: bool) -> None:
        """Visit ``node``; ``asked``: a class that it names is asked about, and no object is made of it."""
        names = node.elts if isinstance(node, ast.Tuple) else [node]
        before, self._asked_about = self._asked_about, asked and all(dotted(name) is not None for name in names)
        self.visit(node)
        self._asked_about = before

    def visit_Import(self, node: ast.Import) -> None:
        self._import(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._import(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if self._in_class:  # becomes an attribute, which nobody can follow; a function's imports are in its scope
            targets = import_targets(node, module=self._module, is_package=self._is_package)
            self.found |= {mark + target for _, target in targets for mark in ("", MAKES)}

    def visit_Subscript(self, node: ast.Subscript) -> None:
        value = node.value
        if isinstance(value, ast.Attribute) and value.attr == "modules" and getattr(value.value, "id", "") == "sys":
            self.found.add(f"{node.slice.value!s}:" if isinstance(node.slice, ast.Constant) else WHOLE_MODULE)
        if ast.unparse(value) == "globals()" and isinstance(node.ctx, ast.Load) and (prefix := _beginning(node.slice)):
            self.found.add(WHOLE_MODULE + prefix)
        else:
            self.visit(value)
        self._ask(node.slice, asked=bool(_TYPE_FORMS & set((dotted(value) or [""])[-1:])))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all([*node.decorator_list, *node.keywords])
        for base in node.bases:
            self._ask(base, asked=True)
        outer = self._in_class, self._based
        self._in_class, self._based = True, bool(node.bases)
        self._visit_all(node.body)
        self._in_class, self._based = outer

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_all(part for part in (node.target, node.value) if part is not None)
        if self._in_class:
            self._annotation(node.annotation, asked=not self._based)

    def _annotation(self, node: ast.expr, *, asked: bool) -> None:
        """A quoted annotation means the names in it: dataclasses and pydantic look them up, and pydantic makes them."""
        self._ask(node, asked=asked)
        for item in ast.walk(node):
            if isinstance(item, ast.Constant) and isinstance(item.value, str):
                try:
                    self._ask(ast.parse(item.value, mode="eval").body, asked=asked)
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
            self._annotation(annotation, asked=False)
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
        for mark in ("",) if self._asked_about else ("", MAKES):
            self.found |= {mark + reference for reference in self._meant(name, chain)}

    def _meant(self, name: str, chain: list[str]) -> list[str]:
        for names, imports in reversed(self._scopes):
            if name in imports:
                return imported(name, chain, imports[name])
            if name in names:
                return []
        return [".".join([name, *chain])]

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)


def _beginning(text: ast.expr) -> str:
    """What a text certainly begins with; empty if that is not known."""
    first = text.values[0] if isinstance(text, ast.JoinedStr) and text.values else text
    return str(first.value) if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _is_given(call: ast.Call) -> bool:
    """``model_validate(job.parameters["config"])``: resolved values, none of which is missing."""
    return len(call.args) == 1 and not call.keywords and isinstance(call.args[0], ast.Attribute | ast.Subscript)


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
