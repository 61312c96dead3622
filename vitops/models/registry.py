"""From a ``model:`` section to a module.

Architectures stand in the configuration as dotted names and are imported on use, so that one more of them changes no
stage key of the others.
"""

import pkgutil
from collections.abc import Callable
from typing import Any

from torch import nn

from vitops.config.base import Section

PRUNED = "vitops.models.pruned_vit:build"
"""What rebuilds a model whose artifact carries pruned widths: a code root of every stage that reads one."""


def build(section: Section, *, classes: int) -> nn.Module:
    """The architecture of ``section`` with ``classes`` outputs, freshly initialised from torch's global generator.

    Raises UsageError when the architecture or its arguments do not exist.
    """
    if section.implementation is None:
        raise TypeError(f"{type(section).__name__} names no implementation")
    module: nn.Module = resolve(section.implementation)(section, classes=classes)
    return module


def resolve(name: str) -> Callable[..., Any]:
    """The attribute that ``module:attribute`` names, imported now."""
    found: Callable[..., Any] = pkgutil.resolve_name(name)
    return found
