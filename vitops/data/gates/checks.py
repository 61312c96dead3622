"""What a gate demands of a table, as plain values: the suite turns them into Great Expectations objects."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Check:
    """One expectation."""

    gate: str
    """Name in messages, e.g. ``decodable``; one gate may have several expectations."""
    expectation: str
    """Class name in ``great_expectations.expectations``."""
    arguments: dict[str, Any]
    advice: str
    """What to do when it fails, as the end of a sentence."""
    table: Literal["samples", "classes"] = "samples"
    """``samples``: the sample table; ``classes``: one row per class with ``class`` and ``count``."""
    fails: bool = True
    """False: a violation is recorded and reported, and does not stop the run."""
