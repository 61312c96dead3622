"""Overlaying one part of a configuration on another without losing where each value stands.

Law: mappings merge key by key, everything else replaces; a mapping whose ``kind`` changes is replaced as a whole, so
that no key of the old kind leaks into the new one. So is a teacher with ``weights`` by one that is trained, which has
an ``objective``, and the other way round.
"""

from dataclasses import dataclass
from typing import Any

from vitops.config.yaml_lines import Document, KeyPath

_EITHER = (("weights", "objective"), ("objective", "weights"))
"""Keys of which a mapping has one: with the other it is something else."""


@dataclass(frozen=True)
class Tree:
    """Plain data and the place (``FILE:LINE`` or the option) each key path comes from."""

    value: Any
    places: dict[KeyPath, str]

    @classmethod
    def of(cls, document: Document) -> "Tree":
        """The whole document."""
        return cls(document.value, document.places())

    def under(self, path: KeyPath) -> "Tree":
        """The part at ``path``, with key paths relative to it. Raises KeyError where there is none."""
        value = self.value
        for part in path:
            value = value[part]
        places = {inner[len(path) :]: place for inner, place in self.places.items() if inner[: len(path)] == path}
        return Tree(value, {(): self.place(path), **places})

    def without(self, key: str) -> "Tree":
        """This mapping less one key."""
        places = {path: place for path, place in self.places.items() if path[:1] != (key,)}
        return Tree({name: value for name, value in self.value.items() if name != key}, places)

    def place(self, path: KeyPath) -> str:
        """Where ``path`` stands, or the nearest mapping around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return ""

    def overlaid(self, top: "Tree") -> "Tree":
        """This tree with ``top`` merged over it."""
        places = dict(self.places)
        return Tree(_merge(self.value, top, (), places), places)


def _merge(base: Any, top: Tree, path: KeyPath, places: dict[KeyPath, str]) -> Any:
    if isinstance(base, dict) and isinstance(top.value, dict) and not _another(base, top.value):
        merged = dict(base)
        for key in top.value:
            merged[key] = _merge(base.get(key), top.under((key,)), (*path, key), places)
        return merged
    for stale in [inner for inner in places if inner[: len(path)] == path]:
        del places[stale]
    places.update({(*path, *inner): place for inner, place in top.places.items()})
    return top.value


def _another(base: dict[str, Any], top: dict[str, Any]) -> bool:
    if "kind" in base and "kind" in top:
        return bool(base["kind"] != top["kind"])
    return any(one in base and other in top for one, other in _EITHER)
