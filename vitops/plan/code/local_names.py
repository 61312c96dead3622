"""Functions with their local variables numbered: what a local is called changes nothing that a function does.

Law: two functions come out equal only if one is the other with locals renamed. A name stays where that could be seen
or is not plain: parameters (callers use them), names bound in a nested scope as well, by ``def``, ``import``,
``except`` or ``match``, or declared ``global`` or ``nonlocal``; and all names of a function that may look at its own
(``locals``).
"""

import ast
import copy
from collections.abc import Iterator

_LOOKS = frozenset({"dir", "eval", "exec", "locals", "vars"})
_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp)


def renamed_locals(node: ast.AST) -> ast.AST:
    """A copy of ``node`` with the locals of each outermost function in it numbered in order of appearance."""
    functions = list(_outermost(node))
    if not any(_plain_locals(function) for function in functions):
        return node
    twin = copy.deepcopy(node)
    for function in _outermost(twin):
        numbers: dict[str, str] = {}
        plain = _plain_locals(function)
        for item in ast.walk(function):
            if isinstance(item, ast.Name) and item.id in plain:
                item.id = numbers.setdefault(item.id, f"local {len(numbers)}")
    return twin


def _outermost(node: ast.AST) -> Iterator[_Function]:
    if isinstance(node, _Function):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from _outermost(child)


def _plain_locals(function: _Function) -> set[str]:
    inside = [item for statement in function.body for item in ast.walk(statement)]
    if any(isinstance(item, ast.Name) and item.id in _LOOKS for item in inside):
        return set()
    own = {item for statement in function.body for item in _own(statement)}
    stored = {item.id for item in own if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)}
    elsewhere = {
        item.id
        for item in inside
        if item not in own and isinstance(item, ast.Name) and not isinstance(item.ctx, ast.Load)
    }
    return stored - elsewhere - set(_bound_otherwise(function)) - _in_signature(function)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement that belong to the function's own scope."""
    yield node
    if not isinstance(node, (*_SCOPES, ast.GeneratorExp)):
        for child in ast.iter_child_nodes(node):
            yield from _own(child)


def _in_signature(function: _Function) -> set[str]:
    """Names in decorators, defaults and annotations: they mean something outside."""
    parts = [*function.decorator_list, function.args, *([function.returns] if function.returns else [])]
    return {item.id for part in parts for item in ast.walk(part) if isinstance(item, ast.Name)}


def _bound_otherwise(function: _Function) -> Iterator[str]:
    for item in ast.walk(function):
        if isinstance(item, ast.arg):
            yield item.arg
        elif isinstance(item, _NAMED) and item.name:
            yield item.name
        elif isinstance(item, ast.MatchMapping) and item.rest:
            yield item.rest
        elif isinstance(item, ast.Global | ast.Nonlocal):
            yield from item.names
        elif isinstance(item, ast.Import | ast.ImportFrom):
            for alias in item.names:
                yield alias.asname or alias.name.split(".")[0]
