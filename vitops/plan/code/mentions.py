"""Which attributes a definition asks for, of whatever object, and whether it may look behind them.

A mention is ``.name`` for an attribute, ``.name[key]`` for one that is only asked for a constant key, ``=name`` for
a name of an object or a module that is given another value. ``~`` stands
where more may be seen than attributes by their names: other classes of an object's order, all attributes of a class,
one whose name is computed. ``~self`` is the same where only the object of which the code is a method is looked at
(``super()``, ``getattr(self, name)``). Where the rules leave doubt, it is ``~``.
"""

import ast
import re
from collections.abc import Sequence

from vitops.plan.code.imports import Imports
from vitops.plan.code.scopes import bound_names, dotted

PEEKS = "~"
PEEKS_AT_ITSELF = "~self"
HOOK = "__init_subclass__"

_LOOKERS = frozenset(
    {
        *("__base__", "__bases__", "__closure__", "__delattr__", "__dict__", "__getattr__", "__getattribute__"),
        *(HOOK, "__mro__", "__orig_bases__", "__setattr__", "__thisclass__", "attrgetter"),
        *("classify_class_attrs", "create_model", "f_locals", "get_objects", "get_referents", "get_referrers"),
        *("getattr_static", "getmembers", "getmembers_static", "getmro", "make_dataclass", "methodcaller", "mro"),
        *("new_class", "resolve_bases"),
    }
)
"""Attributes and functions that show more of a class than one attribute."""
_BUILTINS = frozenset(
    {"__builtins__", "builtins", "delattr", "dir", "eval", "exec", "getattr", "setattr", "super", "vars"}
)
_FORMATS = frozenset({"format", "format_map", "vformat"})
_FIELD_OF_FIELD = re.compile(r"\{[^}]*[.\[]")
_IMPORTERS = frozenset({"import_module", "resolve_name"})
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def mentions(node: ast.AST, *, imports: Imports, method: bool = False) -> set[str]:
    """Every mention in ``node``, a statement of a module with these ``imports``, or a ``method`` of a class in it."""
    asker = _Asker(imports)
    if method and isinstance(node, _Function):
        asker.visit_method(node)
    elif isinstance(node, ast.ClassDef):
        asker.visit_outer_class(node)
    else:
        asker.visit(node)
    return asker.found


def generic(base: ast.expr) -> ast.expr:
    """``Base`` of ``Base[int]``."""
    return base.value if isinstance(base, ast.Subscript) else base


class _Asker(ast.NodeVisitor):
    def __init__(self, imports: Imports) -> None:
        self.found: set[str] = set()
        self._imports = imports
        self._own: str | None = None

    def visit_outer_class(self, node: ast.ClassDef) -> None:
        self._bases(node)
        for item in node.body:
            if isinstance(item, _Function):
                self.visit_method(item)
            elif isinstance(item, ast.AnnAssign):
                self.generic_visit(item)
            else:
                self.visit(item)

    def visit_method(self, node: _Function) -> None:
        """Its first argument is an object of the class, or the class; in a static method it is not."""
        first = [*node.args.posonlyargs, *node.args.args][:1]
        static = any((dotted(item) or [""])[-1] == "staticmethod" for item in node.decorator_list)
        self._visit_all([*node.decorator_list, *_defaults(node.args)])
        self._own = None if static or not first or first[0].arg in bound_names(node.body) else first[0].arg
        self._visit_all(node.body)
        self._own = None

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """A class inside a function, or another class: what it inherits is not followed."""
        if len(node.bases) > 1:
            self.found.add(PEEKS)
        self._bases(node)
        outer, self._own = self._own, None
        self._visit_all(node.body)
        self._own = outer

    def _bases(self, node: ast.ClassDef) -> None:
        if any(dotted(generic(base)) is None for base in node.bases):
            self.found.add(PEEKS)
        self._visit_all([*node.decorator_list, *node.bases, *node.keywords])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node, node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node, node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node, [node.body])

    def _function(self, node: _Function | ast.Lambda, body: Sequence[ast.AST]) -> None:
        self._visit_all([*getattr(node, "decorator_list", []), *_defaults(node.args)])
        hidden = {item.arg for item in ast.walk(node.args) if isinstance(item, ast.arg)} | bound_names(body)
        outer, self._own = self._own, None if self._own in hidden else self._own
        self._visit_all(body)
        self._own = outer

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_all([node.target, *([node.value] if node.value else [])])

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        meant = {node.id, *(target.split(":")[1].split(".")[-1] for target in self._imports.get(node.id, []))}
        if meant & _LOOKERS or node.id in _BUILTINS:
            self.found.add(PEEKS)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if {alias.name for alias in node.names} & (_LOOKERS | _BUILTINS):
            self.found.add(PEEKS)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._ask(node.attr, node.value)
        if isinstance(node.ctx, ast.Store):
            self.found.add(f"={node.attr}")
        elif isinstance(node.ctx, ast.Del):
            self._look_at(node.value)
        if node.attr in _FORMATS and not _is_plain_template(node.value):
            self.found.add(PEEKS)
        self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        value, key = node.value, getattr(node.slice, "value", None)
        if isinstance(value, ast.Attribute) and isinstance(key, str) and isinstance(node.ctx, ast.Load):
            self._ask(value.attr, value.value, key=f"[{key}]")
            self.visit(value.value)
        else:
            self._visit_all([value, node.slice])

    def visit_Global(self, node: ast.Global) -> None:
        self.found |= {f"={name}" for name in node.names}

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        for name in node.kwd_attrs:
            self._ask(name, None)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in {"getattr", "setattr"} and len(node.args) > 1:
            self._ask_by_name(*node.args[:2])
        elif name in {"delattr", "dir", "vars"}:
            self._look_at(node.args[0] if node.args else None)
        elif name == "super":
            self.found.add(PEEKS_AT_ITSELF if self._own and (not node.args or self._is_own(node.args[-1])) else PEEKS)
        elif name == "type" and (len(node.args) > 1 or any(isinstance(item, ast.Starred) for item in node.args)):
            self.found.add(PEEKS)
        else:
            self.visit(node.func)
        self._visit_all([*node.args, *node.keywords])

    def _ask_by_name(self, receiver: ast.expr, name: ast.expr) -> None:
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            self._ask(name.value, receiver)
            self.found.add(f"={name.value}")
        elif not (isinstance(receiver, ast.Call) and (dotted(receiver.func) or [""])[-1] in _IMPORTERS):
            self._look_at(receiver)

    def _ask(self, name: str, receiver: ast.expr | None, *, key: str = "") -> None:
        if name in _LOOKERS and not (name == HOOK and _is_super(receiver)):
            self._look_at(receiver)
        self.found.add(f".{name}{key}")

    def _look_at(self, receiver: ast.expr | None) -> None:
        self.found.add(PEEKS_AT_ITSELF if self._is_own(receiver) else PEEKS)

    def _is_own(self, node: ast.expr | None) -> bool:
        """``self``, ``type(self)`` or ``self.__class__`` in a method."""
        if isinstance(node, ast.Call) and len(node.args) == 1 and getattr(node.func, "id", "") == "type":
            node = node.args[0]
        elif isinstance(node, ast.Attribute) and node.attr == "__class__":
            node = node.value
        return self._own is not None and isinstance(node, ast.Name) and node.id == self._own

    def _visit_all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)


def _defaults(arguments: ast.arguments) -> list[ast.expr]:
    return [item for item in (*arguments.defaults, *arguments.kw_defaults) if item is not None]


def _is_super(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "super"


def _is_plain_template(node: ast.expr) -> bool:
    text = node.value if isinstance(node, ast.Constant) else None
    return isinstance(text, str) and not _FIELD_OF_FIELD.search(text)
