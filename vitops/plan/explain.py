"""Why a stage would run: the input, parameter, definition, library or declared fact that changed, by name."""

from pathlib import Path
from typing import Any

from vitops.config.pipelines import Project
from vitops.config.problems import did_you_mean
from vitops.errors import UsageError
from vitops.lineage.ledger import Ledger
from vitops.plan.plan import Examined, examine
from vitops.plan.stages import stages
from vitops.store.artifacts import Store

JSON = dict[str, Any]


def explain(
    root: Path, store: Store, ledger: Ledger, project: Project, name: str, *, stage: str | None = None
) -> list[Examined]:
    """Every stage of pipeline ``name``, or one, with its changes against the nearest receipt. Raises UsageError."""
    known = [item.name for item in stages(project, name)]
    if stage is not None and stage not in known:
        raise UsageError(f"explain {name} {stage}: the pipeline has no such stage{did_you_mean(stage, known)}")
    examined = examine(root, store, ledger, project, name)
    return examined if stage is None else [item for item in examined if item.planned.name == stage]


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
