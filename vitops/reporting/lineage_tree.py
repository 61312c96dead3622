"""Where a report comes from, as a tree of artifacts: from the package back to the dataset."""

from collections.abc import Mapping
from typing import Any

Node = dict[str, Any]
_ROOT = "report"


def lineage_tree(digests: Mapping[str, str], run: Mapping[str, Any] | None) -> Node:
    """``{"name", "digest", "seen", "inputs"}`` nested, the report at the root. ``digests``: the report's input roles.

    With a run record the tree follows the inputs of every stage, in order of execution; a stage met again is marked
    ``seen`` and not repeated. Inputs that no stage of the run made (pinned artifacts) hang at the root.
    """
    stages = {stage["name"]: stage for stage in run["stages"]} if run else {}
    seen: set[str] = set()
    start = ["package"] if "package" in stages else []
    inputs = [_branch(name, stages, digests, seen) for name in start]
    rest = [role for role in sorted(digests) if role not in seen]
    return _node(_ROOT, None, inputs + [_branch(role, stages, digests, seen) for role in rest])


def _branch(name: str, stages: Mapping[str, Any], digests: Mapping[str, str], seen: set[str]) -> Node:
    stage = stages.get(name, {"inputs": {}, "digest": None})
    digest = digests.get(name) or stage["digest"]
    upstream = [other for other in stages if other in stage["inputs"].values()]
    if name in seen:
        return _node(name, digest, [], seen=True)
    seen.add(name)
    return _node(name, digest, [_branch(other, stages, digests, seen) for other in upstream])


def _node(name: str, digest: str | None, inputs: list[Node], *, seen: bool = False) -> Node:
    return {"name": name, "digest": digest, "inputs": inputs, "seen": seen}
