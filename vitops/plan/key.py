"""The stage key: the name of a piece of work before it is done.

Laws: equal ingredients give equal keys in every pipeline (neither the pipeline's nor the stage's name is one), and the
worker count is no ingredient in exact mode. ``ingredients`` is the whole of it, so whatever differs can be named.
"""

from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

from vitops.plan.code.digest import CodeDigest
from vitops.plan.stages import Stage
from vitops.store import canonical

JSON = dict[str, Any]

ABSENT = "absent"


def stage_key(stage: Stage, inputs: Mapping[str, str], code: CodeDigest) -> str:
    """SHA-256 over the ingredients, 64 hex digits. ``inputs``: role -> digest of each input (pinned ones are added)."""
    return canonical.digest(ingredients(stage, inputs, code))


def ingredients(stage: Stage, inputs: Mapping[str, str], code: CodeDigest) -> JSON:
    """What the key is taken over, as plain JSON."""
    return {
        "kind": stage.kind,
        "parameters": stage.parameters,
        "inputs": {**inputs, **stage.pinned},
        "code": code.digest,
        "environment": declared_environment(stage),
    }


def declared_environment(stage: Stage) -> JSON:
    """Declared facts about the execution: device, threads, mode, and the versions of the libraries that shape bytes."""
    return {**stage.environment, "libraries": {name: library_version(name) for name in stage.libraries}}


@cache
def library_version(name: str) -> str:
    """Version of an installed distribution by its metadata, or ``absent``; nothing is imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ABSENT
