"""What counts of the configuration room: not what only declares, for resolved values stand in the stage key already.

The fields of a section make a definition of their own (``Name<fields>``), which only code that may make a section by
itself reaches: values that it leaves out have their defaults, and those are in no parameters. Type aliases count
nowhere. A private attribute, a ``ClassVar`` and a ``Final`` are no fields: their values are in no parameters.
"""

import ast
import builtins
from typing import TypeGuard

from vitops.plan.code.imports import Imports
from vitops.plan.code.on_import import bases
from vitops.plan.code.scopes import dotted

FIELDS = "<fields>"
"""Ending of the definition that holds the fields of a configuration section."""

_PLAIN_BASES = frozenset({"enum", "typing"})
"""Modules whose classes make a class of constants, not a configuration section."""
_NO_FIELD = frozenset({"ClassVar", "Final"})
_TYPE_FORMS = frozenset(
    {"Annotated", "ClassVar", "Literal", "Optional", "Union", "dict", "list", "set", "tuple", "type"}
)
_ASKED = frozenset({"__module__", "__name__", "__qualname__"})

Nodes = dict[str, list[ast.stmt]]


class Sections:
    """The sections among the ``nodes`` of one module; none where ``declarations`` says that it is in another room."""

    def __init__(self, nodes: Nodes, imports: Imports, *, declarations: bool) -> None:
        self._nodes, self._imports, self._declarations = nodes, imports, declarations

    def undeclared(self, node: ast.stmt) -> ast.stmt | None:
        """The part of a definition that counts; None for a type alias."""
        if isinstance(node, ast.ClassDef) and (fields := self.fields(node)):
            return ast.ClassDef(
                name=node.name,
                bases=node.bases,
                keywords=node.keywords,
                body=[item for item in node.body if item not in fields],
                decorator_list=node.decorator_list,
            )
        alias = self._declarations and isinstance(node, ast.Assign) and self._is_type(node.value)
        return None if alias else node

    def fields(self, node: ast.stmt) -> list[ast.stmt]:
        """The statements of a class that only declare a field of a section."""
        if not self.is_section(node):
            return []
        return [item for item in node.body if isinstance(item, ast.AnnAssign) and _is_field(item)]

    def is_section(self, node: ast.stmt) -> TypeGuard[ast.ClassDef]:
        """A class of the configuration room with a base that may be pydantic's."""
        if not isinstance(node, ast.ClassDef) or not self._declarations or node.decorator_list or not node.bases:
            return False
        origins = {target for base in bases(node) for target in self._imports.get(base.split(".")[0], [base])}
        return not any(target.split(":")[0].split(".")[0] in _PLAIN_BASES for target in origins)

    def _is_type(self, value: ast.expr) -> bool:
        """``Annotated[...]``, ``Literal[...]``, ``A | B`` of types: what only annotations and validation read."""
        if isinstance(value, ast.Subscript):
            return bool(_TYPE_FORMS & set((dotted(value.value) or [""])[-1:]))
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
            return self._is_type(value.left) and self._is_type(value.right)
        if isinstance(value, ast.Name):
            nodes = self._nodes.get(value.id, [])
            constant = any(isinstance(node, ast.Assign | ast.AnnAssign) and not self._aliases(node) for node in nodes)
            return not constant and (bool(nodes) or value.id in self._imports or hasattr(builtins, value.id))
        return isinstance(value, ast.Constant) and value.value is None

    def _aliases(self, node: ast.Assign | ast.AnnAssign) -> bool:
        return isinstance(node.value, ast.Subscript | ast.BinOp) and self._is_type(node.value)


def makes_itself(node: ast.ClassDef) -> bool:
    """Whether a method may make an object of its own class: ``cls()``, ``type(self)(...)``."""
    return any(_is_own_class(item) for call in ast.walk(node) if isinstance(call, ast.Call) for item in _used(call))


def asks_only(attribute: str) -> bool:
    """Whether ``Section.attribute`` tells nothing of the fields and is no constructor of pydantic's."""
    return attribute in _ASKED or not attribute.startswith(("model_", "__"))


def _used(call: ast.Call) -> list[ast.expr]:
    return [call.func, *call.args, *(keyword.value for keyword in call.keywords)]


def _is_own_class(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "type"
    chain = dotted(node) or [""]
    return chain[0] == "cls" or "__class__" in chain


def _is_field(node: ast.AnnAssign) -> bool:
    private = isinstance(node.target, ast.Name) and node.target.id.startswith("_")
    return not private and not any(name in ast.unparse(node.annotation) for name in _NO_FIELD)
