"""A class as a shell and its members, where its text shows that defining it does nothing more.

Laws: the shell is all of the class except what its methods do and what its constants are: name, bases, annotations, the
names of the members and their order. A class stays in one piece where a decorator, keyword or base that is not the
package's own may look at it, where its body runs anything, reads its own names, or makes an object that may be told of
its class; and so do classes with members that Python itself treats in a special way while a class is defined.
"""

import ast
from collections.abc import Collection
from dataclasses import dataclass

from vitops.plan.code.imports import Imports, imported
from vitops.plan.code.mentions import HOOK
from vitops.plan.code.normal_form import is_inert
from vitops.plan.code.scopes import dotted

MEMBER = "::"
"""Between the name of a class and that of a member, in the name of the definition that the member makes."""

_WRAPPERS = frozenset({"classmethod", "property", "staticmethod"})
_FOREIGN_WRAPPERS = frozenset({"abc:abstractmethod", "functools:cached_property", "typing:override"})
_SPECIAL = frozenset(
    {
        *("__class__", "__class_getitem__", "__delete__", "__dict__", "__get__", "__mro_entries__", "__prepare__"),
        *("__pydantic_init_subclass__", "__set__", "__set_name__", "__subclasshook__"),
    }
)
_HOOK_WRAPPERS: tuple[list[list[str]], ...] = ([], [["classmethod"]])
_LITERALS = (
    *(ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp),
    *(ast.unaryop, ast.operator, ast.expr_context),
)
_NAMES = (*_LITERALS, ast.Name, ast.Attribute)
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Member = ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign


@dataclass(frozen=True)
class Split:
    """``shell`` and ``members`` (name -> what counts of it) of one class."""

    shell: ast.ClassDef
    members: dict[str, _Member]
    bound: list[str]
    """Members that are given the class when they are asked of it."""
    registry: str | None
    """Attribute under which ``__init_subclass__`` keeps subclasses by their names, empty if it does anything else."""


def split(node: ast.ClassDef, *, package: str, bound: Collection[str], imports: Imports) -> Split | None:
    """The parts of ``node`` in a module that binds these names; None where it counts in one piece."""
    counted = [item for item in node.body if not is_inert(item)]
    named = [item for item in counted if not _only_declares(item)]
    if (
        node.decorator_list
        or node.keywords
        or getattr(node, "type_params", None)
        or not all(_is_own(base, package, bound=bound, imports=imports) for base in node.bases)
        or not all(_is_plain(item, imports, bound) for item in counted)
        or _reads_its_names(node, counted, {_name(item) for item in named})
    ):
        return None
    members = {_mangled(_name(item), node.name): _member(item) for item in named}
    if len(members) < len(named):
        return None
    return Split(
        shell=ast.ClassDef(
            name=node.name, bases=node.bases, keywords=[], body=[_declared(item) for item in counted], decorator_list=[]
        ),
        members=members,
        bound=sorted(name for name, item in members.items() if _wrapped(item, "classmethod")),
        registry=_registry(members.get(HOOK), node.name, members),
    )


def _is_own(base: ast.expr, package: str, *, bound: Collection[str], imports: Imports) -> bool:
    root = (dotted(base) or [""])[0]
    targets = imports.get(root, [])
    return root in bound if not targets else all(target.split(":")[0].split(".")[0] == package for target in targets)


def _only_declares(item: ast.stmt) -> bool:
    return isinstance(item, ast.AnnAssign) and item.value is None


def _name(item: ast.stmt) -> str:
    if isinstance(item, _Function):
        return item.name
    targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""


def _mangled(name: str, owner: str) -> str:
    private = name.startswith("__") and not name.endswith("__")
    return f"_{owner.lstrip('_')}{name}" if private and owner.strip("_") else name


def _member(item: ast.stmt) -> _Member:
    if isinstance(item, ast.AnnAssign) and item.value is not None:
        return ast.Assign([item.target], item.value)
    assert isinstance(item, _Member)
    return item


def _declared(item: ast.stmt) -> ast.stmt:
    if isinstance(item, ast.AnnAssign):
        return ast.AnnAssign(target=item.target, annotation=item.annotation, value=None, simple=item.simple)
    return ast.Expr(ast.Name(_name(item), ast.Load()))


def _is_plain(item: ast.stmt, imports: Imports, bound: Collection[str]) -> bool:
    """Whether defining the member runs nothing, and gives nobody its class."""
    name = _name(item)
    special = name.startswith("__") and name.endswith("__")
    if isinstance(item, _Function):
        defaults = [part for part in (*item.args.defaults, *item.args.kw_defaults) if part is not None]
        wrapped = all(_is_wrapper(part, imports, bound) for part in item.decorator_list)
        return wrapped and name not in _SPECIAL and all(_is_made_of(part, _NAMES) for part in defaults)
    if not isinstance(item, ast.Assign | ast.AnnAssign) or not name or special:
        return False
    return item.value is None or _is_made_of(item.value, _LITERALS)


def _is_wrapper(decorator: ast.expr, imports: Imports, bound: Collection[str]) -> bool:
    chain = dotted(decorator)
    if chain is None:
        return False
    if chain[0] in imports:
        return set(imported(chain[0], chain[1:], imports[chain[0]])) <= _FOREIGN_WRAPPERS
    return len(chain) == 1 and chain[0] in _WRAPPERS and chain[0] not in bound


def _is_made_of(value: ast.expr, kinds: tuple[type[ast.AST], ...]) -> bool:
    return all(isinstance(part, kinds) for part in ast.walk(value))


def _reads_its_names(node: ast.ClassDef, counted: list[ast.stmt], names: set[str]) -> bool:
    read = {item.id for part in _run_in_class(counted) for item in ast.walk(part) if isinstance(item, ast.Name)}
    return bool(read & names) or any(isinstance(item, ast.Name) and item.id == "__class__" for item in ast.walk(node))


def _run_in_class(counted: list[ast.stmt]) -> list[ast.expr]:
    found: list[ast.expr | None] = []
    for item in counted:
        if isinstance(item, _Function):
            found += [*item.decorator_list, *item.args.defaults, *item.args.kw_defaults]
        elif isinstance(item, ast.AnnAssign):
            found.append(item.annotation)
    return [part for part in found if part is not None]


def _wrapped(item: _Member, wrapper: str) -> bool:
    return isinstance(item, _Function) and any(wrapper in (dotted(part) or []) for part in item.decorator_list)


def _registry(hook: _Member | None, owner: str, members: dict[str, _Member]) -> str | None:
    """``Owner.known[cls.__name__] = cls``, where ``known`` is a dictionary, and nothing else but the next hook."""
    if hook is None:
        return None
    if not isinstance(hook, ast.FunctionDef) or [dotted(part) for part in hook.decorator_list] not in _HOOK_WRAPPERS:
        return ""
    if len(hook.args.args) != 1 or hook.args.posonlyargs or hook.args.kwonlyargs or hook.args.vararg:
        return ""
    left = [item for item in hook.body if not is_inert(item) and not _calls_next_hook(item, hook.args.kwarg)]
    own = hook.args.args[0].arg
    kept = [f"{holder}.{name}" for holder in (owner, own) for name, item in members.items() if _is_dict(item)]
    text = ast.unparse(left[0]) if len(left) == 1 else ""
    return next((place.split(".")[1] for place in kept if text == f"{place}[{own}.__name__] = {own}"), "")


def _calls_next_hook(item: ast.stmt, rest: ast.arg | None) -> bool:
    given = f"**{rest.arg}" if rest else ""
    return ast.unparse(item) in {f"super().{HOOK}()", f"super().{HOOK}({given})"}


def _is_dict(item: _Member) -> bool:
    return isinstance(item, ast.Assign) and isinstance(item.value, ast.Dict)
