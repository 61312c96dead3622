"""The graph of definitions of one package, read from its source without importing anything.

Laws: a node is a module-level definition, or a member of a class that is split (``members``), under its dotted name; an
edge leads to a definition of the same package that the node may use, and some edges are there only once something that
is reached has a mention (``families``). A name is followed to where it is defined, to all places where it may be
(``names``). A module used as a value, through ``globals()`` or by a name that it does not visibly define, means all of
it; ``globals()[f"op_{name}"]`` means what begins so, and ``__subclasses__`` every class with a base. What runs when a
reached module is imported counts: its statements, and the definitions that call, decorate or subclass something, of the
package or foreign, that may take note of them. Names that arrive outside the package end there: the versions of other
distributions stand in the stage key. ``pkgutil.resolve_name`` (or ``importlib.import_module``) with a computed name
leads nowhere: that is the seam where a section's ``implementation`` is imported, and those are roots.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vitops.errors import VitopsError
from vitops.plan.code.families import Families
from vitops.plan.code.modules import Modules
from vitops.plan.code.names import Names
from vitops.plan.code.on_import import NOTED, keeps_subclasses
from vitops.plan.code.scopes import LOADS, MAKES, SUBCLASSES
from vitops.plan.code.sections import FIELDS, asks_only
from vitops.plan.code.syntax import EFFECTS
from vitops.store.stat_memo import StatMemo


@dataclass(frozen=True)
class Definition:
    """One node: its dotted name, a digest over its text and what its names mean, and the dotted names it leads to.

    The digest is empty where nothing counts: a module without statements, a type alias of the configuration.
    """

    name: str
    digest: str
    leads_to: tuple[str, ...]
    table: Mapping[str, str] = field(default_factory=dict)
    """Key -> ``module:attribute``, of a table of implementations; it counts only where it says what a root is for."""
    mentions: frozenset[str] = frozenset()
    """What it asks of attributes, as ``vitops.plan.code.mentions`` writes it."""
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Mention -> what it leads to as well, once something that is reached has that mention."""


class Package:
    """The definitions of the package in ``folder``; summaries of its files come from ``memo`` while unchanged."""

    def __init__(self, folder: Path, memo: StatMemo | None = None) -> None:
        self._modules = Modules(folder, memo)
        self._names = Names(self._modules)
        self._families = Families(self._modules, self._names)
        self._nodes: dict[str, Definition] = {}

    @property
    def folder(self) -> Path:
        """Where the package lies."""
        return self._modules.folder

    @property
    def name(self) -> str:
        """The name of the package."""
        return self._modules.package

    def roots(self, root: str) -> list[str]:
        """Dotted names of ``module:attribute``, or of everything in ``module``. Raises VitopsError if there is none."""
        module, _, attribute = root.partition(":")
        if self._modules.summary(module) is None:
            raise VitopsError(f"code root {root}: there is no module {module} in {self.folder}")
        if not attribute:
            return self._everything(module)
        found = self._names.resolve(module, attribute.split("."))
        if not any(meaning.startswith(f"{self.name}.") for meaning in found):
            raise VitopsError(f"code root {root}: {module} defines no {attribute}")
        return [name for meaning in found for name in self._expand(meaning)]

    def definition(self, name: str) -> Definition:
        """The node under a dotted name, or the mention, that ``roots`` or another node's edges gave."""
        if name not in self._nodes:
            named = name.startswith(f"{self.name}.")
            self._nodes[name] = self._node(name) if named else Definition(name, "", (), mentions=frozenset({name}))
        return self._nodes[name]

    def _node(self, name: str) -> Definition:
        module, attribute = name.rsplit(".", 1)
        summary = self._modules.existing(module)
        text, found = summary["definitions"].get(attribute, ["", []])
        leads_to = self._loaded_with(module) if attribute == EFFECTS else [f"{module}.{EFFECTS}"]
        lines = [text]
        for reference in found:
            if reference.startswith(LOADS):
                leads_to += self._load(reference[1:])
            elif reference.startswith(MAKES):
                leads_to += self._filled_in(module, reference[1:])
            elif reference == SUBCLASSES:
                leads_to += self._all_subclasses()
            else:
                for meaning in self._names.meanings(module, reference):
                    lines.append(f"{reference} {meaning}")
                    leads_to += self._expand(meaning, self._asked_of(module, reference, meaning))
        if attribute in summary["bases"]:
            leads_to += self._inherited(name, lines)
        if self._made_by_itself(name, set()):
            leads_to += self._filled_in(module, attribute)
        return Definition(
            name,
            hashlib.sha256("\n".join(lines).encode()).hexdigest() if text else "",
            tuple(dict.fromkeys(leads_to)),
            table=summary["tables"].get(attribute, {}),
            mentions=frozenset(summary["mentions"].get(attribute, ())),
            given=self._families.given(name),
        )

    def _asked_of(self, module: str, reference: str, meaning: str) -> str:
        return self._names.attribute_of(module, reference, meaning) if self._families.is_split(meaning) else ""

    def _inherited(self, name: str, lines: list[str]) -> list[str]:
        """A shell leads to those of its bases; what a class in one piece makes of its bases, nobody knows."""
        bases = self._families.bases(name)
        if not self._families.is_split(name):
            return [node for base in bases for node in self._families.whole(base)]
        lines += [f"base {meaning}" for meaning in bases]
        shells = [[base] if self._families.is_split(base) else self._expand(base) for base in bases]
        return [*(node for nodes in shells for node in nodes), *self._families.hook(name)]

    def _filled_in(self, module: str, reference: str) -> list[str]:
        """The fields of a section that may be made here: the defaults of those not given stand in no parameters."""
        meanings, (owner, _, last) = self._names.meanings(module, reference), reference.rpartition(".")
        if owner and ":" not in last and asks_only(last) and self._names.meanings(module, owner) == meanings:
            return []
        names = [f"{meaning}{FIELDS}".rsplit(".", 1) for meaning in meanings if self._modules.ours(meaning)]
        return [f"{place}.{name}" for place, name in names if name in self._modules.existing(place)["definitions"]]

    def _made_by_itself(self, name: str, seen: set[str]) -> bool:
        """Whether a method of this class, or of a base, may make an object of it."""
        module, _, attribute = name.rpartition(".")
        if name in seen or not self._modules.ours(name):
            return False
        if f"{MAKES}{attribute}" in self._modules.existing(module)["definitions"].get(attribute, ["", []])[1]:
            return True
        bases = self._modules.existing(module)["bases"].get(attribute, [])
        return any(
            self._made_by_itself(meaning, {*seen, name})
            for base in bases
            for meaning in self._names.meanings(module, base)
        )

    def _all_subclasses(self) -> list[str]:
        """Every class of the package with a base: whichever of them is loaded, ``__subclasses__()`` may find it."""
        summaries = [(module, self._modules.existing(module)) for module in self._modules.names()]
        names = [
            f"{module}.{name}" for module, summary in summaries for name, bases in summary["bases"].items() if bases
        ]
        return [node for name in names for node in self._expand(name)]

    def _expand(self, target: str, attribute: str = "") -> list[str]:
        """A definition stands for itself, ``pkg.mod:`` for all of the module, a foreign name for nothing."""
        if target.endswith(":"):
            return self._everything(target[:-1])
        if self._families.is_split(target):
            return self._families.asked(target, attribute) if attribute else self._families.used(target)
        return [target] if self._modules.ours(target) else []

    def _everything(self, module: str) -> list[str]:
        names = [f"{module}.{name}" for name in self._modules.existing(module)["definitions"]]
        return [*(node for name in names for node in self._expand(name)), f"{module}.{EFFECTS}"]

    def _load(self, target: str) -> list[str]:
        """What runs when ``module:attribute`` is imported: the module's statements, and those of a submodule."""
        module, _, attribute = target.partition(":")
        found = self._modules.effects(module)
        return found + self._modules.effects(f"{module}.{attribute}") if attribute else found

    def _loaded_with(self, module: str) -> list[str]:
        """What runs because a definition of ``module`` is used: its own statements and those of what it imports."""
        parts = module.split(".")
        parents = [".".join(parts[:size]) for size in range(1, len(parts))]
        found = [name for place in (*parents, module) for name in self._modules.effects(place)]
        for target in self._modules.existing(module)["loads"]:
            found += self._load(target)
        return found + self._noted(module)

    def _noted(self, module: str) -> list[str]:
        """Definitions that tell something of the package about themselves when ``module`` is imported."""
        summary = self._modules.existing(module)
        calling = [
            name
            for name, called in summary["on_import"].items()
            if NOTED in called
            or any(
                self._modules.ours(meaning)
                for reference in called
                for meaning in self._names.meanings(module, reference)
            )
        ]
        derived = [f"{module}.{name}" for name in summary["bases"] if self._hooked(f"{module}.{name}", set())]
        told = [self._families.told(name) if self._families.is_split(name) else [name] for name in derived]
        return [node for nodes in (*(self._expand(f"{module}.{name}") for name in calling), *told) for node in nodes]

    def _hooked(self, name: str, seen: set[str]) -> bool:
        """Whether a base of this class, or its metaclass, runs code when the class is defined."""
        module, _, attribute = name.rpartition(".")
        if name in seen:
            return False
        if not self._modules.ours(name):
            return name.endswith(":") or keeps_subclasses(name)
        bases = self._modules.existing(module)["bases"].get(attribute, [])
        return NOTED in bases or any(
            self._hooked(meaning, {*seen, name}) for base in bases for meaning in self._names.meanings(module, base)
        )
