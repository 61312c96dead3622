"""What a run left on record: enough to execute it again without today's pipelines.yaml.

Laws: the configuration is the resolved sections of one dataset and one pipeline, as every receipt and ``run.json``
carry them; ``run.json`` is no evidence, so each of its digests must be vouched for by a receipt under the same key. Of
several receipts of one output the one by today's code speaks, if there is one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitops.config.pipelines import Project
from vitops.errors import UsageError, VerificationError
from vitops.lineage.ledger import Ledger
from vitops.lineage.receipts import Receipt
from vitops.plan.code.definitions import Package
from vitops.plan.code.digest import code_digest, vitops_package
from vitops.plan.key import stage_key
from vitops.plan.plan import resolved
from vitops.plan.record import RunFile, StageRecord
from vitops.plan.stages import Stage
from vitops.store import canonical
from vitops.store.artifacts import Store

JSON = dict[str, Any]


@dataclass(frozen=True)
class Recorded:
    """Stages that were executed or found as hits, and the receipt of each."""

    pipeline: str
    project: Project
    stages: tuple[Stage, ...]
    """Upstream first, as today's code sees them."""
    receipts: Mapping[str, Receipt]
    """Stage name -> receipt."""


def configuration(project: Project, pipeline: str) -> JSON:
    """The resolved sections of the pipeline and its dataset."""
    section = project.pipelines[pipeline]
    return {
        "datasets": {section.dataset: project.datasets[section.dataset].parameters()},
        "pipelines": {pipeline: section.parameters()},
    }


def of_run(store: Store, ledger: Ledger, name: str) -> Recorded:
    """What the run of that name came to.

    Raises UsageError for a run that finished no stage or whose record cannot be read, VerificationError where no
    receipt vouches for its record.
    """
    record = _run_file(store.runs / name / "run.json", name)
    done = [stage for stage in record.stages if stage.done]
    if not done:
        raise UsageError(f"run {name} finished no stage: there is nothing to reproduce")
    receipts = {stage.name: _vouched(ledger, name, stage) for stage in done}
    project = _project(record.configuration, f"run {name}")
    (pipeline,) = project.pipelines
    chosen = tuple(stage for stage in resolved(store, project, pipeline) if stage.name in receipts)
    return Recorded(pipeline, project, chosen, receipts)


def of_artifact(store: Store, ledger: Ledger, digest: str) -> Recorded:
    """The artifact of that digest and every stage before it, as its own receipt's configuration wires them.

    Raises UsageError for one without a receipt, VerificationError where the receipt of a stage before it is missing.
    """
    last = ledger.by_digest(digest)
    if last is None:
        raise UsageError(f"no receipt is about artifact {digest}: only what a run made here can be reproduced")
    project = _project(last.configuration, f"receipt {last.sequence} (stage {last.stage} of {last.pipeline})")
    (name,) = project.pipelines
    chosen = resolved(store, project, name, until=last.stage)
    receipts = {last.stage: last}
    for stage in reversed(chosen):
        made = receipts[stage.name]
        for role, upstream in stage.inputs.items():
            receipts.setdefault(upstream, _before(ledger, made, role))
    return Recorded(name, project, chosen, _newest(ledger, chosen, receipts, package=vitops_package(store.memo)))


def _newest(
    ledger: Ledger, stages: Iterable[Stage], receipts: Mapping[str, Receipt], *, package: Package
) -> dict[str, Receipt]:
    """For each stage the receipt of the same computation by today's code, where its output was the same."""
    newest = {}
    for stage in stages:
        made = receipts[stage.name]
        key = stage_key(stage, made.inputs, code_digest(stage.roots, package=package))
        current = ledger.by_key(key)
        newest[stage.name] = current if current is not None and current.digest == made.digest else made
    return newest


def _run_file(path: Path, run: str) -> RunFile:
    try:
        return RunFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(
            f"run {run}: {path} cannot be read. Name its package or another artifact instead: receipts are the evidence"
        ) from error


def _vouched(ledger: Ledger, run: str, stage: StageRecord) -> Receipt:
    receipt = ledger.by_key(stage.key, digest=stage.digest) if stage.key and stage.digest else None
    if receipt is None:
        other = ledger.by_key(stage.key) if stage.key else None
        found = "no receipt has that key" if other is None else f"receipt {other.sequence} says {other.digest}"
        raise VerificationError(
            f"run {run}, stage {stage.name}: its record says {stage.digest}, but {found}. "
            "Name the package or another artifact instead: receipts are the evidence"
        )
    return receipt


def _before(ledger: Ledger, made: Receipt, role: str) -> Receipt:
    receipt = ledger.by_digest(made.inputs[role], before=made.sequence)
    if receipt is None:
        raise VerificationError(
            f"receipt {made.sequence} (stage {made.stage}) names {made.inputs[role]} as its {role}, but no intact "
            "earlier receipt is about that artifact: `vitops verify` names what is damaged"
        )
    return receipt


def _project(sections: JSON | None, where: str) -> Project:
    if sections is None:
        raise UsageError(f"{where} does not carry its configuration: it was written by a release before 'reproduce'")
    try:
        return Project.model_validate_json(canonical.dumps(sections), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{where}: today's vitops does not take the recorded configuration ({key}: {first['msg']}). "
            "Reproduce it with the release that made it"
        ) from error
