"""Where the names of a package are defined: through imports, aliases, re-exports and ``import *``, to all places.

A meaning is the dotted name of a definition, ``pkg.mod:`` for all of a module, or a foreign name. What a reference is
made of says ``scopes``.
"""

from vitops.plan.code.imports import imported
from vitops.plan.code.modules import Modules
from vitops.plan.code.scopes import WHOLE_MODULE
from vitops.plan.code.syntax import Summary


class Names:
    """What references in ``modules`` may mean; asked again, the answer is remembered."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules
        self._resolved: dict[tuple[str, str], tuple[str, ...]] = {}
        self._resolving: list[tuple[str, str]] = []

    def meanings(self, module: str, reference: str) -> tuple[str, ...]:
        """What a reference of ``module`` may mean; nothing for a builtin."""
        if reference.startswith(WHOLE_MODULE):
            return self._beginning(module, reference[1:])
        if ":" not in reference:
            return self.resolve(module, reference.split("."))
        place, _, chain = reference.partition(":")
        return self._attribute(place, chain.split(".") if chain else [])

    def attribute_of(self, module: str, reference: str, meaning: str) -> str:
        """The attribute that ``reference`` asks of the definition ``meaning``; empty where it may mean all of it."""
        place, colon, chain = reference.rpartition(":")
        parts = chain.split(".")
        for size in range(1, len(parts)):
            found = self.meanings(module, f"{place}{colon}{'.'.join(parts[:size])}")
            if meaning in found:
                return parts[size] if len(found) == 1 else ""
        return ""

    def resolve(self, module: str, chain: list[str]) -> tuple[str, ...]:
        """Where ``chain`` of ``module`` may be defined: dotted names, ``module:``, foreign ones; none for a builtin."""
        key = (module, ".".join(chain))
        if key in self._resolved:
            return self._resolved[key]
        if key in self._resolving:  # a circle of re-exports defines nothing on this way; another way may
            return ()
        self._resolving.append(key)
        found = tuple(dict.fromkeys(self._look_up(module, chain)))
        self._resolving.pop()
        if found or not self._resolving:
            self._resolved[key] = found
        return found

    def _beginning(self, module: str, prefix: str) -> tuple[str, ...]:
        """What the names of a module that begin with ``prefix`` may mean; all of it where not every name shows."""
        summary = self._modules.existing(module)
        if not prefix or summary["stars"]:
            return (f"{module}:",)
        names = sorted(name for name in {*summary["definitions"], *summary["imports"]} if name.startswith(prefix))
        return tuple(meaning for name in names for meaning in self.resolve(module, [name]))

    def _attribute(self, module: str, chain: list[str]) -> tuple[str, ...]:
        """``chain`` asked of a module from outside: one that it does not visibly define may be anything in it."""
        found = self.resolve(module, chain)
        circle = (module, ".".join(chain)) in self._resolving
        return found or (() if circle or self._modules.summary(module) is None else (f"{module}:",))

    def _look_up(self, module: str, chain: list[str]) -> list[str]:
        summary = self._modules.summary(module)
        if summary is None:
            return [".".join([module, *chain])]
        if not chain:
            return [f"{module}:"]
        found = [*self._bound(module, chain, summary), *self._starred(chain, summary)]
        return found or ([f"{module}:"] if "__getattr__" in summary["definitions"] else [])

    def _bound(self, module: str, chain: list[str], summary: Summary) -> tuple[str, ...]:
        name, rest = chain[0], chain[1:]
        if name in summary["definitions"]:
            return (f"{module}.{name}",)
        for target in imported(name, rest, summary["imports"].get(name, [])):
            place, _, attributes = target.partition(":")
            if found := self._attribute(place, attributes.split(".") if attributes else []):
                return found
        if self._modules.summary(f"{module}.{name}") is not None:
            asked = (f"{module}.__getattr__",) if "__getattr__" in summary["definitions"] else ()
            return (
                *self._attribute(f"{module}.{name}", rest),
                *asked,
            )  # Python asks it before it imports the submodule
        return ()

    def _starred(self, chain: list[str], summary: Summary) -> list[str]:
        """``import *`` brings what the other module has, before or after a definition of the same name here."""
        return [found for star in summary["stars"] for found in self.resolve(star, chain) if self._modules.ours(found)]
