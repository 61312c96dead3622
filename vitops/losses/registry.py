"""From an ``objective:`` section to an Objective, imported on use."""

import pkgutil
from collections.abc import Mapping, Sequence

from torch import nn

from vitops.config.base import Section
from vitops.losses.objective import Objective


def build(section: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]) -> Objective:
    """The objective of ``section`` for ``model``; ``teachers`` by role (``teacher``, ``dense``), ``counts`` per class.

    Raises UsageError when the section asks for a teacher or a head that is not there.
    """
    if section.implementation is None:
        raise TypeError(f"{type(section).__name__} names no implementation")
    chosen: type[Objective] = pkgutil.resolve_name(section.implementation)
    return chosen(section, model=model, teachers=teachers, counts=counts)
