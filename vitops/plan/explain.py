"""Why a stage would run: the input, parameter, definition, library or declared fact that changed, by name."""

from pathlib import Path
from typing import Any

from vitops.config.pipelines import Project
from vitops.config.problems import did_you_mean
from vitops.errors import UsageError
from vitops.lineage.ledger import Ledger
from vitops.plan.plan import Examined, examine
from vitops.store.artifacts import Store

JSON = dict[str, Any]


def explain(
    root: Path, store: Store, ledger: Ledger, project: Project, name: str, *, stage: str | None = None
) -> list[Examined]:
    """Every stage of pipeline ``name``, or one, with its changes against the nearest receipt. Raises UsageError."""
    examined = examine(root, store, ledger, project, name)
    if stage is None:
        return examined
    chosen = [item for item in examined if item.planned.name == stage]
    if not chosen:
        known = did_you_mean(stage, [item.planned.name for item in examined])
        raise UsageError(f"explain {name} {stage}: the pipeline has no such stage{known}")
    return chosen


def document(pipeline: str, examined: list[Examined]) -> JSON:
    """The explanation as the JSON document that ``explain --json`` prints."""
    return {
        "pipeline": pipeline,
        "stages": [
            {
                "name": item.planned.name,
                "status": item.planned.status,
                "changes": [change.to_json() for change in item.changes],
            }
            for item in examined
        ],
    }
