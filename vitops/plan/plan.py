"""What a run would do, without doing it: every stage is a hit, would run, or waits for an input that is not known yet.

Laws: a planned hit hits and a planned run executes; a stage waits exactly while the digest of one of its inputs is not
known, and then has no key. A hit needs a receipt under the key and the artifact, unaltered as far as stat records tell.
DVC owns the data stages, so their hits are what it finds unchanged. Nothing is written but caches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vitops.config.pipelines import Project
from vitops.config.problems import did_you_mean
from vitops.data import versions
from vitops.errors import UsageError
from vitops.lineage.ledger import Ledger
from vitops.plan import data_code, pinned
from vitops.plan.changes import Change, History, changes
from vitops.plan.code.definitions import Package
from vitops.plan.code.digest import CodeDigest, code_digest, vitops_package
from vitops.plan.key import stage_key
from vitops.plan.stages import Stage, stages
from vitops.store.artifacts import Store
from vitops.store.stat_memo import StatMemo

JSON = dict[str, Any]
Status = Literal["hit", "run", "waits"]


@dataclass(frozen=True)
class Planned:
    """One stage of a plan, with the fields of ``plan --json``."""

    name: str
    kind: str
    exactness: Literal["exact", "measured"]
    key: str | None
    """None while the stage waits."""
    status: Status
    digest: str | None
    """Digest of the artifact of a hit."""
    reason: str

    def to_json(self) -> JSON:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Examined:
    """A planned stage and what it was judged by."""

    planned: Planned
    changes: tuple[Change, ...]
    """Differences to the nearest earlier execution; empty for a hit and for a stage that never ran."""


def plan(
    root: Path, store: Store, ledger: Ledger, project: Project, name: str, *, until: str | None = None
) -> list[Planned]:
    """The stages of pipeline ``name`` (up to ``until``, if given) in order of execution. Raises UsageError."""
    return [examined.planned for examined in examine(root, store, ledger, project, name, until=until)]


def wanted(pipeline: Sequence[Stage], until: str | None) -> tuple[Stage, ...]:
    """The stage called ``until`` and everything it needs, in order; all stages for None. Raises UsageError."""
    if until is None:
        return tuple(pipeline)
    by_name = {stage.name: stage for stage in pipeline}
    if until not in by_name:
        raise UsageError(f"--until {until}: the pipeline has no such stage{did_you_mean(until, by_name)}")
    needed = {until}
    for stage in reversed(pipeline):
        if stage.name in needed:
            needed.update(stage.inputs.values())
    return tuple(stage for stage in pipeline if stage.name in needed)


def resolved(store: Store, project: Project, name: str, *, until: str | None = None) -> tuple[Stage, ...]:
    """The stages that are asked for, with everything that their keys need. Raises UsageError."""
    chosen = wanted(stages(project, name), until)
    return pinned.rooted(chosen, pipeline=project.pipelines[name], name=name, store=store)


def document(pipeline: str, planned: list[Planned]) -> JSON:
    """The plan as the JSON document that ``plan --json`` prints."""
    return {"pipeline": pipeline, "stages": [stage.to_json() for stage in planned]}


def examine(
    root: Path, store: Store, ledger: Ledger, project: Project, name: str, *, until: str | None = None
) -> list[Examined]:
    """Like ``plan``, with the changes that led to each status."""
    chosen = resolved(store, project, name, until=until)
    package = vitops_package(store.memo)
    source = source_input(root, project.pipelines[name].dataset, store.memo)
    data = _data_status(root, store, project, name, package)
    return examine_stages(chosen, pipeline=name, data=data, source=source, store=store, ledger=ledger, package=package)


def source_input(root: Path, dataset: str, memo: StatMemo) -> dict[str, str]:
    """The one input of an ``ingest`` that no stage makes: ``source`` -> SHA-256.

    Raises UsageError where there is no source: no data stage hits without it, and none can run.
    """
    return {"source": versions.source_digest(root, dataset, memo)}


def _data_status(
    root: Path, store: Store, project: Project, name: str, package: Package
) -> dict[str, versions.DataStatus]:
    """What DVC finds, corrected by what it cannot see: code that changed since its digests were written down."""
    pipeline = project.pipelines[name]
    found = dict(versions.status(root, pipeline.dataset, pipeline.split, store.memo))
    for kind in data_code.stale(root, pipeline.dataset, project.datasets[pipeline.dataset], package):
        if found[kind].unchanged:
            reason = f"its code or a library changed since {data_code.FILE} was written"
            found[kind] = replace(found[kind], unchanged=False, digest=None, reason=reason)
    return found


def examine_stages(
    chosen: Sequence[Stage],
    *,
    pipeline: str,
    data: Mapping[str, versions.DataStatus],
    source: Mapping[str, str],
    store: Store,
    ledger: Ledger,
    package: Package,
) -> list[Examined]:
    """The verdict on ``chosen`` (upstream first), given what DVC found (``data``), the ``source`` and the code."""
    planner = _Planner(store, ledger, pipeline=pipeline, data=data, source=source, package=package)
    examined = [planner.examine(stage) for stage in chosen]
    store.memo.save()
    return examined


class _Planner:
    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        *,
        pipeline: str,
        data: Mapping[str, versions.DataStatus],
        source: Mapping[str, str],
        package: Package,
    ) -> None:
        self._store, self._ledger, self._pipeline, self._data = store, ledger, pipeline, data
        self._source, self._package = source, package
        self._history = History(ledger)
        self._digests: dict[str, str | None] = {}

    def examine(self, stage: Stage) -> Examined:
        inputs = {role: self._digests[upstream] for role, upstream in stage.inputs.items()}
        if stage.kind == "ingest":
            inputs.update(self._source)
        known = {role: digest for role, digest in inputs.items() if digest is not None}
        code = code_digest(stage.roots, package=self._package)
        key = stage_key(stage, known, code) if len(known) == len(inputs) else None
        status, digest, reason = self._status(stage, key, inputs)
        self._digests[stage.name] = digest
        found = () if status == "hit" else self._changes(stage, inputs, code)
        reason = reason or _summary(found)
        planned = Planned(stage.name, stage.kind, stage.exactness, key, status, digest, reason)
        return Examined(planned, found)

    def _status(
        self, stage: Stage, key: str | None, inputs: Mapping[str, str | None]
    ) -> tuple[Status, str | None, str]:
        """Status, digest and reason; an empty reason leaves it to the changes."""
        if key is None:
            missing = {stage.inputs[role] for role, digest in inputs.items() if digest is None}
            first = next(name for name in self._digests if name in missing)
            return "waits", None, f"waits for {first}"
        if stage.is_data:
            data = self._data[stage.kind]
            return ("hit", data.digest, data.reason or "unchanged") if data.unchanged else ("run", None, data.reason)
        receipt = self._ledger.by_key(key)
        if receipt is None:
            return "run", None, ""
        if not self._store.present(receipt.digest):
            return "run", None, f"artifact {receipt.digest[:12]} is altered or gone"
        return "hit", receipt.digest, "unchanged"

    def _changes(self, stage: Stage, inputs: Mapping[str, str | None], code: CodeDigest) -> tuple[Change, ...]:
        receipt = self._history.nearest(stage.name, self._pipeline)
        return () if receipt is None else tuple(changes(stage, inputs, code, receipt))


def _summary(found: tuple[Change, ...]) -> str:
    if not found:
        return "not run yet"
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0]}{more}"
