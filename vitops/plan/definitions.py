"""The graph of definitions of one package, read from its source without importing anything.

Laws: a node is a module-level definition (a class is one unit) under its dotted name; an edge leads to a definition of
the same package that the node may use. A name is followed through imports, aliases, re-exports and ``import *`` to
where it is defined, to all places where it may be. A module used as a value, through ``globals()`` or by a name that it
does not visibly define, means all of it; ``globals()[f"op_{name}"]`` means what begins so, and ``__subclasses__`` every
class with a base. What runs when a reached module is imported counts: its statements, and the definitions that call,
decorate or subclass something, of the package or foreign, that may take note of them. Names that arrive outside the
package end there: the versions of other distributions stand in the stage key. ``pkgutil.resolve_name`` (or
``importlib.import_module``) with a computed name leads nowhere: that is the seam where a section's ``implementation``
is imported, and those are roots.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vitops.errors import VitopsError
from vitops.plan import syntax
from vitops.plan.imports import imported
from vitops.plan.on_import import NOTED, keeps_subclasses
from vitops.plan.scopes import LOADS, MAKES, SUBCLASSES, WHOLE_MODULE
from vitops.plan.sections import FIELDS, asks_only
from vitops.plan.syntax import EFFECTS, Summary
from vitops.store.stat_memo import StatMemo

CONFIGURATION_ROOM = "config"


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


class Package:
    """The definitions of the package in ``folder``; summaries of its files come from ``memo`` while unchanged."""

    def __init__(self, folder: Path, memo: StatMemo | None = None) -> None:
        self.folder, self.name, self._memo = folder.resolve(), folder.name, memo
        self._namespace = f"syntax-{_summariser_digest()}"
        self._modules: dict[str, Summary | None] = {}
        self._resolved: dict[tuple[str, str], tuple[str, ...]] = {}
        self._resolving: list[tuple[str, str]] = []
        self._nodes: dict[str, Definition] = {}

    def roots(self, root: str) -> list[str]:
        """Dotted names of ``module:attribute``, or of everything in ``module``. Raises VitopsError if there is none."""
        module, _, attribute = root.partition(":")
        if self._summary(module) is None:
            raise VitopsError(f"code root {root}: there is no module {module} in {self.folder}")
        if not attribute:
            return self._everything(module)
        found = self._resolve(module, attribute.split("."))
        if not any(meaning.startswith(f"{self.name}.") for meaning in found):
            raise VitopsError(f"code root {root}: {module} defines no {attribute}")
        return [name for meaning in found for name in self._expand(meaning)]

    def definition(self, name: str) -> Definition:
        """The node under a dotted name that ``roots`` or another node's ``leads_to`` gave."""
        if name not in self._nodes:
            self._nodes[name] = self._node(name)
        return self._nodes[name]

    def _node(self, name: str) -> Definition:
        module, attribute = name.rsplit(".", 1)
        text, found = self._module(module)["definitions"].get(attribute, ["", []])
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
                for meaning in self._meanings(module, reference):
                    lines.append(f"{reference} {meaning}")
                    leads_to += self._expand(meaning)
        if self._made_by_itself(name, set()):
            leads_to += self._filled_in(module, attribute)
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest() if text else ""
        table = self._module(module)["tables"].get(attribute, {})
        return Definition(name, digest, tuple(dict.fromkeys(leads_to)), table)

    def _meanings(self, module: str, reference: str) -> tuple[str, ...]:
        """What a reference of ``module`` may mean; nothing for a builtin."""
        if reference.startswith(WHOLE_MODULE):
            return self._beginning(module, reference[1:])
        if ":" not in reference:
            return self._resolve(module, reference.split("."))
        place, _, chain = reference.partition(":")
        return self._attribute(place, chain.split(".") if chain else [])

    def _beginning(self, module: str, prefix: str) -> tuple[str, ...]:
        """What the names of a module that begin with ``prefix`` may mean; all of it where not every name shows."""
        summary = self._module(module)
        if not prefix or summary["stars"]:
            return (f"{module}:",)
        names = sorted(name for name in {*summary["definitions"], *summary["imports"]} if name.startswith(prefix))
        return tuple(meaning for name in names for meaning in self._resolve(module, [name]))

    def _attribute(self, module: str, chain: list[str]) -> tuple[str, ...]:
        """``chain`` asked of a module from outside: one that it does not visibly define may be anything in it."""
        found = self._resolve(module, chain)
        circle = (module, ".".join(chain)) in self._resolving
        return found or (() if circle or self._summary(module) is None else (f"{module}:",))

    def _filled_in(self, module: str, reference: str) -> list[str]:
        """The fields of a section that may be made here: the defaults of those not given stand in no parameters."""
        meanings, (owner, _, last) = self._meanings(module, reference), reference.rpartition(".")
        if owner and ":" not in last and asks_only(last) and self._meanings(module, owner) == meanings:
            return []
        names = [f"{meaning}{FIELDS}" for meaning in meanings if self._ours(meaning)]
        return [name for name in names if name.rsplit(".", 1)[1] in self._module(name.rsplit(".", 1)[0])["definitions"]]

    def _made_by_itself(self, name: str, seen: set[str]) -> bool:
        """Whether a method of this class, or of a base, may make an object of it."""
        module, _, attribute = name.rpartition(".")
        if name in seen or not self._ours(name):
            return False
        if f"{MAKES}{attribute}" in self._module(module)["definitions"].get(attribute, ["", []])[1]:
            return True
        bases = self._module(module)["bases"].get(attribute, [])
        return any(
            self._made_by_itself(meaning, {*seen, name}) for base in bases for meaning in self._meanings(module, base)
        )

    def _all_subclasses(self) -> list[str]:
        """Every class of the package with a base: whichever of them is loaded, ``__subclasses__()`` may find it."""
        paths = (path.relative_to(self.folder).with_suffix("") for path in sorted(self.folder.rglob("*.py")))
        modules = (".".join([self.name, *path.parts]).removesuffix(".__init__") for path in paths)
        return [
            f"{module}.{name}" for module in modules for name, bases in self._module(module)["bases"].items() if bases
        ]

    def _expand(self, target: str) -> list[str]:
        """A definition stands for itself, ``pkg.mod:`` for all of the module, a foreign name for nothing."""
        if target.endswith(":"):
            return self._everything(target[:-1])
        return [target] if self._ours(target) else []

    def _everything(self, module: str) -> list[str]:
        names = [f"{module}.{name}" for name in self._module(module)["definitions"]]
        return [*names, f"{module}.{EFFECTS}"]

    def _resolve(self, module: str, chain: list[str]) -> tuple[str, ...]:
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

    def _look_up(self, module: str, chain: list[str]) -> list[str]:
        summary = self._summary(module)
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
        if self._summary(f"{module}.{name}") is not None:
            asked = (f"{module}.__getattr__",) if "__getattr__" in summary["definitions"] else ()
            return (
                *self._attribute(f"{module}.{name}", rest),
                *asked,
            )  # Python asks it before it imports the submodule
        return ()

    def _starred(self, chain: list[str], summary: Summary) -> list[str]:
        """``import *`` brings what the other module has, before or after a definition of the same name here."""
        return [found for star in summary["stars"] for found in self._resolve(star, chain) if self._ours(found)]

    def _load(self, target: str) -> list[str]:
        """What runs when ``module:attribute`` is imported: the module's statements, and those of a submodule."""
        module, _, attribute = target.partition(":")
        found = self._effects(module)
        return found + self._effects(f"{module}.{attribute}") if attribute else found

    def _loaded_with(self, module: str) -> list[str]:
        """What runs because a definition of ``module`` is used: its own statements and those of what it imports."""
        parts = module.split(".")
        parents = [".".join(parts[:size]) for size in range(1, len(parts))]
        found = [name for place in (*parents, module) for name in self._effects(place)]
        for target in self._module(module)["loads"]:
            found += self._load(target)
        return found + self._noted(module)

    def _noted(self, module: str) -> list[str]:
        """Definitions that tell something of the package about themselves when ``module`` is imported."""
        summary = self._module(module)
        calling = [
            name
            for name, called in summary["on_import"].items()
            if NOTED in called
            or any(self._ours(meaning) for reference in called for meaning in self._meanings(module, reference))
        ]
        derived = [name for name in summary["bases"] if self._hooked(f"{module}.{name}", set())]
        return [f"{module}.{name}" for name in (*calling, *derived)]

    def _hooked(self, name: str, seen: set[str]) -> bool:
        """Whether a base of this class, or its metaclass, runs code when the class is defined."""
        module, _, attribute = name.rpartition(".")
        if name in seen:
            return False
        if not self._ours(name):
            return name.endswith(":") or keeps_subclasses(name)
        bases = self._module(module)["bases"].get(attribute, [])
        return NOTED in bases or any(
            self._hooked(meaning, {*seen, name}) for base in bases for meaning in self._meanings(module, base)
        )

    def _effects(self, module: str) -> list[str]:
        return [f"{module}.{EFFECTS}"] if self._summary(module) is not None else []

    def _ours(self, name: str) -> bool:
        return name.startswith(f"{self.name}.") and self._summary(name.rsplit(".", 1)[0]) is not None

    def _module(self, module: str) -> Summary:
        summary = self._summary(module)
        assert summary is not None, module
        return summary

    def _summary(self, module: str) -> Summary | None:
        if module not in self._modules:
            self._modules[module] = self._read(module)
        return self._modules[module]

    def _read(self, module: str) -> Summary | None:
        parts = module.split(".")
        if parts[0] != self.name:
            return None
        base = self.folder.joinpath(*parts[1:])
        for path, is_package in ((base / "__init__.py", True), (base.with_name(f"{base.name}.py"), False)):
            if path.is_file():
                return self._remembered(path, module, is_package)
        return None

    def _remembered(self, path: Path, module: str, is_package: bool) -> Summary:
        def compute(file: Path) -> Summary:
            declarations = module.split(".")[1:2] == [CONFIGURATION_ROOM]
            try:
                return syntax.summarise(
                    file.read_text(encoding="utf-8"), module=module, is_package=is_package, declarations=declarations
                )
            except SyntaxError as error:
                raise VitopsError(f"{file}:{error.lineno}: {error.msg}") from error

        return compute(path) if self._memo is None else self._memo.value(self._namespace, path, compute)


def _summariser_digest() -> str:
    """Changes with the code that makes summaries, so that summaries of another vitops are not taken for ours."""
    names = ("imports", "local_names", "normal_form", "on_import", "scopes", "sections", "syntax")
    text = b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in names)
    return hashlib.sha256(text).hexdigest()[:12]
