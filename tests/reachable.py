"""Everything that can hold state: the tensors, arrays and generators that some objects reach, by path."""

import functools
import gc
import random
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

STATE = (torch.Tensor, torch.Generator, np.ndarray, np.random.Generator, np.random.RandomState, random.Random)
_CODE = (type, types.ModuleType, types.CodeType, types.BuiltinFunctionType, types.FrameType)


def reachable(roots: Mapping[str, Any]) -> dict[str, Any]:
    """Path -> tensor, array or generator, along attributes, items, closures and bound arguments.

    Each once: by its shortest path from the first root that reaches it. What an object holds outside of these is found
    through the garbage collector. Module globals are no part of it.
    """
    found: dict[str, Any] = {}
    seen: dict[int, tuple[str, Any]] = {}
    for root in roots.items():
        waiting = deque([root])
        while waiting:
            path, value = waiting.popleft()
            if id(value) in seen or isinstance(value, (*_CODE, str, bytes, int, float, complex, type(None))):
                continue
            seen[id(value)] = path, value
            if isinstance(value, STATE):
                found[path] = value
            waiting.extend(_parts(path, value, seen))
    return found


def globals_of(package: str, modules: Mapping[str, types.ModuleType]) -> dict[str, Any]:
    """The same for the module-level names of a package's loaded modules, memos of pure functions left out."""
    found: dict[str, Any] = {}
    for name, module in sorted(modules.items()):
        if name.partition(".")[0] == package and isinstance(module, types.ModuleType):
            kept = {key: item for key, item in vars(module).items() if not hasattr(item, "cache_info")}
            found |= reachable({f"{name}.{key}": item for key, item in kept.items() if key[:2] != "__"})
    return found


def _parts(path: str, value: Any, seen: Mapping[int, tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor):
        if value.is_leaf and value.grad is not None:
            yield f"{path}.grad", value.grad
        for name, item in vars(value).items():
            yield f"{path}.{name}", item
        return
    if isinstance(value, Mapping) and not isinstance(value, types.MappingProxyType):
        for number, (key, item) in enumerate(list(value.items())):
            known, _ = seen.get(id(key), (f"{type(key).__name__} {number}", key))
            yield f"{path}[{key if isinstance(key, (str, int)) else known}]", item
            yield f"{path}<key {number}>", key
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield f"{path}[{number}]", item
    elif isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        for name, cell in cells:
            if cell != types.CellType():
                yield f"{path}<{name}>", cell.cell_contents
        yield f"{path}<defaults>", [value.__defaults__, value.__kwdefaults__]
        yield path, vars(value)
    elif isinstance(value, types.MethodType):
        yield from ((f"{path}<self>", value.__self__), (path, value.__func__))
    elif isinstance(value, functools.partial):
        yield from ((f"{path}<arguments>", [value.args, value.keywords]), (path, value.func))
    else:
        for name, item in getattr(value, "__dict__", {}).items():
            yield f"{path}.{name}", item
        for number, item in enumerate(gc.get_referents(value)):
            globals_ = isinstance(item, dict) and "__builtins__" in item
            if not (globals_ or isinstance(item, (*_CODE, types.FunctionType))):
                yield f"{path}<{number} {type(item).__name__}>", item
