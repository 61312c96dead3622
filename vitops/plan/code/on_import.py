"""What a definition does when its module is imported: whom it calls, and who may take note of it.

Bodies of functions run later; decorators, defaults, class bodies and the values of assignments run now. What other
distributions do with a definition that is handed to them then cannot be read off our source, so each of their
functions and base classes counts as one that may keep it, except those that are known not to.
"""

import ast
from collections.abc import Iterable, Iterator

from vitops.plan.code.imports import Imports, imported
from vitops.plan.code.scopes import LOADS, MAKES, SUBCLASSES, WHOLE_MODULE, dotted, references

NOTED = ""
"""Stands among the chains that are called, and among bases, where code that we do not know may take note."""

CHANGERS = frozenset({"__import__", "delattr", "eval", "exec", "import_module", "setattr"})
"""Calls that change something from within an assignment, whatever module they come from."""

_FORGETFUL = frozenset(
    {
        *(
            "abc",
            "collections",
            "contextlib",
            "contextvars",
            "dataclasses",
            "datetime",
            "enum",
            "fractions",
            "functools",
        ),
        *("itertools", "logging.getLogger", "math", "operator", "pathlib", "pydantic", "re", "string", "struct"),
        *("torch.enable_grad", "torch.inference_mode", "torch.no_grad", "types", "typing", "typing_extensions"),
    }
)
"""Modules and functions that keep nothing of what they are called with, or decorate."""
_FORGETFUL_BASES = frozenset(
    {"abc", "ast", "collections", "enum", "importlib", "pydantic", "torch.nn", "typing", "typing_extensions"}
)
"""Where base classes come from that keep no list of their subclasses."""
_CALLS_NOTHING = frozenset(
    {"ConfigDict", "Field", "Path", "TypeVar", "compile", "dict", "field", "float", "frozenset", "getLogger", "int"}
) | frozenset({"len", "list", "range", "set", "slice", "str", "tuple"})
"""Calls that call none of their arguments."""
_HOOKS = frozenset({"__class_getitem__", "__init_subclass__", "__pydantic_init_subclass__"})
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def called_on_import(node: ast.stmt, *, module: str, is_package: bool, imports: Imports) -> set[str]:
    """Chains that a definition calls, hands on, or decorates with; ``NOTED`` for a foreign one that may keep it."""
    parts = [part for item in _run_on_import(node) for part in _handed_on(item)]
    own = module.split(".")[0]
    found = {NOTED for item in _run_on_import(node) for name in _callers(item) if _may_keep(name, imports, own=own)}
    for part in parts:
        found |= references(part, module=module, is_package=is_package)
    return {chain for chain in found if not chain.startswith((LOADS, MAKES, SUBCLASSES, WHOLE_MODULE))}


def bases(node: ast.ClassDef) -> list[str]:
    """Base classes as chains, and ``NOTED`` where defining a subclass runs code: a hook, a metaclass."""
    chains = [".".join(chain) for base in node.bases if (chain := dotted(_generic(base)))]
    names = {item.name for item in ast.walk(node) if isinstance(item, _Function)}
    names |= {item.id for item in ast.walk(node) if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)}
    return [*chains, *([NOTED] if names & _HOOKS or node.keywords else [])]


def keeps_subclasses(name: str) -> bool:
    """Whether the foreign class ``name`` (dotted) may keep a list of its subclasses."""
    return not _stands_in(name, _FORGETFUL_BASES)


def _callers(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        yield node.func
    elif isinstance(node, _Function | ast.ClassDef):
        yield from (item for item in node.decorator_list if not isinstance(item, ast.Call))


def _handed_on(node: ast.AST) -> Iterator[ast.expr]:
    """What is called here, and what the call may call in turn."""
    yield from _callers(node)
    if isinstance(node, ast.Call) and (dotted(node.func) or [""])[-1] not in _CALLS_NOTHING:
        yield from (*node.args, *(keyword.value for keyword in node.keywords))


def _may_keep(called: ast.expr, imports: Imports, *, own: str) -> bool:
    chain = dotted(called)
    if chain is None or chain[0] not in imports:
        return False  # a call of its own, a builtin, or a name of the module, which is followed
    targets = [target.replace(":", ".") for target in imported(chain[0], chain[1:], imports[chain[0]])]
    return any(not _stands_in(target, _FORGETFUL) for target in targets if target.split(".")[0] != own)


def _stands_in(name: str, places: frozenset[str]) -> bool:
    parts = name.rstrip(".").split(".")
    return any(".".join(parts[:size]) in places for size in range(1, len(parts) + 1))


def _generic(base: ast.expr) -> ast.expr:
    return base.value if isinstance(base, ast.Subscript) else base


def _run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """``node`` and what is evaluated with it: of a function the decorators and defaults alone."""
    yield node
    if isinstance(node, _Function):
        parts: Iterable[ast.AST | None] = [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]
    elif isinstance(node, ast.Lambda):
        parts = [*node.args.defaults, *node.args.kw_defaults]
    else:
        parts = ast.iter_child_nodes(node)
    for part in parts:
        if part is not None:
            yield from _run_on_import(part)
