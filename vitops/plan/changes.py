"""What differs between a stage as it would run now and the receipt of an earlier execution."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vitops.lineage.ledger import Ledger
from vitops.lineage.receipts import Receipt
from vitops.plan.code.digest import CodeDigest
from vitops.plan.key import declared_environment
from vitops.plan.stages import Stage

JSON = dict[str, Any]
What = Literal["definition", "parameter", "input", "library", "environment"]


@dataclass(frozen=True)
class Change:
    """One ingredient of a stage key that differs; ``old`` or ``new`` is None where it was added or removed."""

    what: What
    name: str
    """Dotted name of the definition, dotted path of the parameter, role of the input, name of the library."""
    old: Any
    new: Any

    def to_json(self) -> JSON:
        """The four fields."""
        return {"what": self.what, "name": self.name, "old": self.old, "new": self.new}

    def __str__(self) -> str:
        if self.what in {"definition", "input"}:
            how = "added" if self.old is None else "removed" if self.new is None else "changed"
            return f"{self.what} {self.name} {how}"
        return f"{self.what} {self.name}: {self.old} -> {self.new}"


def changes(stage: Stage, inputs: Mapping[str, str | None], code: CodeDigest, receipt: Receipt) -> list[Change]:
    """Every ingredient in which ``stage`` differs from ``receipt``; an input whose digest is None is not known yet."""
    declared = _declared(receipt)
    now = declared_environment(stage)
    known = {role: digest for role, digest in {**inputs, **stage.pinned}.items() if digest is not None}
    then = {role: digest for role, digest in receipt.inputs.items() if inputs.get(role, "") is not None}
    old_code = receipt.code.definitions if receipt.code else code.definitions
    return [
        *_differences("input", then, known),
        *_differences("parameter", _flat(receipt.parameters), _flat(stage.parameters)),
        *_differences("definition", old_code, code.definitions),
        *_differences("library", declared.pop("libraries", {}), now.pop("libraries")),
        *_differences("environment", declared, now),
    ]


class History:
    """The ledger, newest first, read no further back than asked."""

    def __init__(self, ledger: Ledger) -> None:
        self._unread = _newest_first(ledger)
        self._latest: dict[tuple[str, str | None], Receipt] = {}

    def nearest(self, stage: str, pipeline: str) -> Receipt | None:
        """The latest receipt of that stage of that pipeline, else of a stage of that name in any pipeline."""
        while (stage, pipeline) not in self._latest:
            receipt = next(self._unread, None)
            if receipt is None:
                return self._latest.get((stage, None))
            self._latest.setdefault((receipt.stage, receipt.pipeline), receipt)
            self._latest.setdefault((receipt.stage, None), receipt)
        return self._latest[stage, pipeline]


def _newest_first(ledger: Ledger) -> Iterator[Receipt]:
    for sequence in reversed(ledger.sequences()):
        try:
            yield ledger.read(sequence).receipt
        except (ValueError, OSError, RecursionError):  # damaged: `verify` names it, here it tells nothing
            continue


def _declared(receipt: Receipt) -> JSON:
    return dict(receipt.predicate.environment.get("declared", {}))


def _differences(what: What, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield Change(what, name, old.get(name), new.get(name))


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Dotted path -> value; the stage's own section needs no prefix."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = "" if not before and name == "config" else f"{before}{name}"
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{path}." if path else "")
        else:
            flat[path or name] = value
    return flat
