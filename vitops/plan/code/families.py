"""Which members of a class can be felt: those that a lookup finds first, in a class that reached code can get hold of.

Laws: a class that ``members`` has split, like all its bases, is *defined* where its module is loaded, and then counts
as a shell. It is *used* where a name in reached code means the class itself: then the first definition of each
attribute in Python's order of its bases counts, for only ``super()`` and its like (``mentions``) see any other. What
asks an attribute of the class by name uses that attribute alone. Where a base is not split or not known for certain,
where a method looks behind attributes, or anything that is reached does so at objects of others, a used class counts
whole, with all its bases. A hook that keeps subclasses in a dictionary under their names (``members``) uses those whose
name is asked of the dictionary, or all of them as soon as it is mentioned in any other way.

Taken for granted: the first argument of a method is an object of its class, or the class, and other distributions see
of an object that they are handed what its attributes give.
"""

from collections.abc import Iterable, Mapping

from vitops.plan.code.members import MEMBER
from vitops.plan.code.mentions import HOOK, PEEKS, PEEKS_AT_ITSELF
from vitops.plan.code.modules import Modules
from vitops.plan.code.names import Names
from vitops.plan.code.syntax import Summary

Nodes = tuple[str, ...]


class Families:
    """The split classes of ``modules`` and how they inherit from each other."""

    def __init__(self, modules: Modules, names: Names) -> None:
        self._modules, self._names = modules, names
        self._orders: dict[str, list[str] | None] = {}

    def is_split(self, name: str) -> bool:
        """Whether a dotted name is that of a class that is split."""
        module, _, attribute = name.rpartition(".")
        summary = self._modules.summary(module)
        return summary is not None and attribute in summary["classes"]

    def used(self, name: str) -> list[str]:
        """Nodes that count where reached code may hold the class."""
        order = self._order(name)
        if order is None or any(map(self._looks_behind, order)):
            return self.whole(name)
        return [*order, *self._visible(order).values()]

    def asked(self, name: str, attribute: str) -> list[str]:
        """Nodes that count where reached code asks ``attribute`` of the class by name."""
        order = self._order(name)
        found = self._visible(order).get(attribute) if order else None
        if order is None or found is None or attribute.startswith("__"):
            return self.used(name)
        owner = found.split(MEMBER)[0]
        if attribute in self._parts(owner)["bound"]:
            return self.used(name)
        return [*order, found, *([PEEKS] if self._looks_behind(owner) else [])]

    def whole(self, name: str) -> list[str]:
        """The class with all its members, and so all its bases; what its hook keeps may be found in any way."""
        found: dict[str, None] = {}
        waiting = [name]
        while waiting:
            chosen = waiting.pop()
            if chosen not in found and self.is_split(chosen):
                parts = self._parts(chosen)
                found |= dict.fromkeys([chosen, *(f"{chosen}{MEMBER}{member}" for member in parts["members"])])
                found |= dict.fromkeys([f".{parts['registry']}"] if parts["registry"] else [])
                waiting += self.bases(chosen)
        return list(found)

    def bases(self, name: str) -> list[str]:
        """Everything that the bases of a class may mean."""
        module, _, attribute = name.rpartition(".")
        chains = self._modules.existing(module)["bases"].get(attribute, [])
        return [meaning for chain in chains if chain for meaning in self._names.meanings(module, chain)]

    def hook(self, name: str) -> list[str]:
        """The member that runs when a subclass is defined, if the class has one."""
        return [f"{name}{MEMBER}{HOOK}"] if self._parts(name)["registry"] is not None else []

    def told(self, name: str) -> list[str]:
        """Nodes that count where a hook of its bases is told of the class."""
        registries = self._registries(name)
        return self.used(name) if registries is None else [name]

    def given(self, name: str) -> Mapping[str, Nodes]:
        """What counts besides the shell of a class as soon as something reached has the mention."""
        order = self._order(name)
        if order is None:
            return {}
        whole, used = tuple(self.whole(name)), tuple(self.used(name))
        found = dict.fromkeys((PEEKS, *(f"={_last(item)}" for item in order)), whole)
        for registry in self._registries(name) or ():
            found |= {f".{registry}": used, f".{registry}[{_last(name)}]": used}
        return found

    def _registries(self, name: str) -> set[str] | None:
        """Where the hooks of its bases keep the class; None where one of them may do anything with it."""
        order = self._order(name)
        if order is None:
            return None
        kept = {self._parts(item)["registry"] for item in order[1:]} - {None}
        return None if "" in kept else kept

    def _visible(self, order: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in order:
            for member in self._parts(name)["members"]:
                found.setdefault(member, f"{name}{MEMBER}{member}")
        return found

    def _looks_behind(self, name: str) -> bool:
        parts = self._parts(name)
        own = [member for member in parts["members"] if member != HOOK or not parts["registry"]]
        module, _, attribute = name.rpartition(".")
        mentions = self._modules.existing(module)["mentions"]
        return any(PEEKS_AT_ITSELF in mentions.get(f"{attribute}{MEMBER}{member}", ()) for member in own)

    def _order(self, name: str) -> list[str] | None:
        """The class and its bases in the order in which Python looks attributes up; None where that is not known."""
        if name not in self._orders:
            self._orders[name] = None  # what a circle of bases leaves it at
            self._orders[name] = self._linear(name)
        return self._orders[name]

    def _linear(self, name: str) -> list[str] | None:
        if not self.is_split(name):
            return None
        module, _, attribute = name.rpartition(".")
        bases: list[str] = []
        for chain in self._modules.existing(module)["bases"].get(attribute, []):
            meanings = self._names.meanings(module, chain) if chain else ()
            if chain and (len(meanings) != 1 or self._names.attribute_of(module, chain, meanings[0])):
                return None
            bases += meanings
        orders = [self._order(base) for base in bases]
        known = [order for order in orders if order is not None]
        merged = _merged([*known, bases])
        return [name, *merged] if len(known) == len(orders) and merged is not None else None

    def _parts(self, name: str) -> Summary:
        module, _, attribute = name.rpartition(".")
        parts: Summary = self._modules.existing(module)["classes"][attribute]
        return parts


def _merged(orders: list[list[str]]) -> list[str] | None:
    """Python's C3 linearisation of ``orders``; None where they contradict each other."""
    found: list[str] = []
    while orders := [order for order in orders if order]:
        heads = (order[0] for order in orders)
        chosen = next((head for head in heads if not any(head in order[1:] for order in orders)), None)
        if chosen is None:
            return None
        found.append(chosen)
        orders = [order[1:] if order[0] == chosen else order for order in orders]
    return found


def _last(name: str) -> str:
    return name.rpartition(".")[2]
