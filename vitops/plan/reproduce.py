"""Execute what is on record once more, in a scratch project with a store of its own, and compare every exact digest.

Laws: nothing made before is reused, neither artifacts nor checkpoints nor DVC's cache; the source's bytes, pinned
models and measured artifacts are taken as given. What would make the result another one is named before anything is
executed, and then nothing is: other source bytes, and any definition, library or declared fact that is not the
recorded one. A stage is executed from what the stages before it gave here, and only if that is what is on record, so
the first difference stands alone. In ``exact`` mode one worker does it all: their number changes no bits.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from vitops.config.load import FILE
from vitops.config.pipelines import Project
from vitops.data import source_file
from vitops.errors import UsageError, VitopsError
from vitops.lineage.ledger import Ledger
from vitops.lineage.receipts import Receipt
from vitops.plan import execute_data, recorded
from vitops.plan.changes import Change, changes
from vitops.plan.code.digest import code_digest, vitops_package
from vitops.plan.execute import Place, execute
from vitops.plan.record import RunRecord
from vitops.plan.recorded import Recorded
from vitops.plan.stages import Stage
from vitops.store import durable, manifest
from vitops.store.artifacts import Store
from vitops.store.host import host_facts
from vitops.store.refs import Ref

JSON = dict[str, Any]
Status = Literal["equal", "differs", "failed", "given", "not run"]
DVC_CONFIG = b"[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"


@dataclass(frozen=True)
class Row:
    """What became of one stage."""

    name: str
    kind: str
    exactness: Literal["exact", "measured"]
    recorded: str
    """The digest on record."""
    found: str | None
    """The digest that came out here; None where the stage was not executed or failed."""
    status: Status
    reason: str
    seconds: float | None

    def to_json(self) -> JSON:
        """The fields by name."""
        return asdict(self)


def obstacles(root: Path, store: Store, old: Recorded) -> dict[str, list[Change]]:
    """Stage -> what is another now than on record; only stages with a difference. Raises UsageError without a source.

    ``root`` is the project whose source files are read.
    """
    package = vitops_package(store.memo)
    found = {}
    for stage in old.stages:
        inputs = {role: old.receipts[upstream].digest for role, upstream in stage.inputs.items()}
        if stage.kind == "ingest":
            inputs["source"] = _source_digest(root, store, old)
        differences = changes(stage, inputs, code_digest(stage.roots, package=package), old.receipts[stage.name])
        if differences:
            found[stage.name] = differences
    return found


def remarks(old: Recorded) -> list[str]:
    """What may make bits differ and is nobody's choice: another machine, or a resume that was told to go on anyway."""
    now, said = host_facts(), []
    for stage in old.stages:
        receipt = old.receipts[stage.name]
        then = receipt.predicate.environment.get("host", {})
        differs = [f"{name} ({then.get(name)}, here {value})" for name, value in now.items() if then.get(name) != value]
        if differs and stage.exactness == "exact":
            said.append(f"{stage.name} was made where another was: {', '.join(differs)}")
        if "environment_changed" in receipt.predicate.outcome.facts:
            said.append(f"{stage.name} went on under another arithmetic, so its bits are no undisturbed run's")
    return said


def unexecuted(old: Recorded, found: Mapping[str, list[Change]]) -> list[Row]:
    """The rows of a reproduction that the obstacles ``found`` forbid."""
    rows = []
    for stage in old.stages:
        reason = "; ".join(map(str, found.get(stage.name, []))) or "another stage is not what is on record"
        rows.append(_row(stage, old.receipts[stage.name], "not run", reason=reason))
    return rows


@contextmanager
def scratch(root: Path, store: Store, old: Recorded) -> Iterator[Place]:
    """A project in the store's own scratch space: recorded configuration, today's code, the source bytes, no more."""
    with store.workspace() as folder:
        _lay_out(folder, root, old.project)
        _link_files(folder, root, old.stages)
        empty = Store(folder / ".vitops")
        for digest in sorted({digest for stage in old.stages for digest in stage.pinned.values()}):
            empty.publish(store.materialize(digest), "model")
        package = vitops_package(store.memo)
        code = {stage.name: code_digest(stage.roots, package=package) for stage in old.stages}
        sections = recorded.configuration(old.project, old.pipeline)
        record = RunRecord(empty.runs / "again", pipeline=old.pipeline, stages=old.stages, configuration=sections)
        yield Place(root=folder, store=empty, ledger=Ledger(empty.home), record=record, code=code)


def reproduce(place: Place, store: Store, old: Recorded, *, say: Callable[[Row], None]) -> list[Row]:
    """Execute the stages in ``place`` (of ``scratch``), in order; ``say`` hears of each row as it comes.

    ``store`` holds measured artifacts that are taken as given. A stage that fails is a row; what nobody can act on
    escapes.
    """
    done: dict[str, Ref] = {}
    rows = []
    for stage in old.stages:
        given = stage.exactness == "measured"
        row, ref = _given(place, store, stage, old) if given else _again(place, stage, old.receipts[stage.name], done)
        if ref is not None:
            done[stage.name] = ref
        rows.append(row)
        say(row)
    return rows


def _given(place: Place, store: Store, stage: Stage, old: Recorded) -> tuple[Row, Ref | None]:
    """A measured stage; its artifact where an exact one reads it."""
    receipt = old.receipts[stage.name]
    row = _row(stage, receipt, "given", reason="measured")
    read = any(stage.name in other.inputs.values() for other in old.stages)
    return row, place.store.publish(store.materialize(receipt.digest), stage.kind) if read else None


def _again(place: Place, stage: Stage, receipt: Receipt, done: Mapping[str, Ref]) -> tuple[Row, Ref | None]:
    """An exact stage: its row, and its output if that is what is on record."""
    missing = sorted({upstream for upstream in stage.inputs.values() if upstream not in done})
    if missing:
        return _row(stage, receipt, "not run", reason=f"{', '.join(missing)} is not as on record"), None
    clock = time.monotonic()
    try:
        ref = _execute(place, stage, {role: done[upstream] for role, upstream in stage.inputs.items()})
    except VitopsError as error:
        return _row(stage, receipt, "failed", reason=str(error)), None
    seconds = round(time.monotonic() - clock, 3)
    if ref.digest == receipt.digest:
        return _row(stage, receipt, "equal", found=ref.digest, seconds=seconds), ref
    reason = f"other bytes: {', '.join(_other_files(place, ref, receipt))}"
    return _row(stage, receipt, "differs", found=ref.digest, reason=reason, seconds=seconds), None


def _execute(place: Place, stage: Stage, inputs: Mapping[str, Ref]) -> Ref:
    if stage.is_data:
        return execute_data.bring(place, stage, inputs).ref
    if stage.environment["mode"] == "exact":
        stage = replace(stage, resources={**stage.resources, "launcher": "local", "workers": 1})
    return execute(place, stage, inputs).ref


def _other_files(place: Place, ref: Ref, receipt: Receipt) -> list[str]:
    path = ref.metadata.get("path")
    entries = manifest.read(place.root / path) if path else place.store.manifest(ref.digest)
    files = {entry.path: entry.sha256 for entry in entries}
    return sorted(name for name in {*files, *receipt.files} if files.get(name) != receipt.files.get(name))


def _row(
    stage: Stage,
    receipt: Receipt,
    status: Status,
    *,
    found: str | None = None,
    reason: str = "",
    seconds: float | None = None,
) -> Row:
    return Row(stage.name, stage.kind, stage.exactness, receipt.digest, found, status, reason, seconds)


def _lay_out(folder: Path, root: Path, project: Project) -> None:
    """The files that DVC and the data stages need, and the source by a link."""
    sections = {name: dataset.parameters() for name, dataset in project.datasets.items()}
    text = yaml.safe_dump({"datasets": sections, "pipelines": {}}, sort_keys=False, allow_unicode=True)
    durable.write_bytes(folder / FILE, text.encode(), sync=False)
    durable.write_bytes(durable.make_folder(folder / ".dvc") / "config", DVC_CONFIG, sync=False)
    if not (root / "dvc.yaml").is_file():
        raise UsageError(f"{root} has no dvc.yaml: copy it from the vitops repository")
    shutil.copyfile(root / "dvc.yaml", folder / "dvc.yaml")
    for name, dataset in project.datasets.items():
        link = Path(os.path.normpath(folder / dataset.source.path))
        if not link.is_relative_to(folder):
            raise UsageError(f"datasets.{name}.source.path leads out of the project: link the data to data/raw/")
        durable.make_folder(link.parent)
        link.symlink_to(source_file.locate(root, name, dataset.source).resolve())
        arrivals = root / "data" / name / "arrivals.json"  # numbers the samples: an input of ingest beside the source
        if arrivals.is_file():
            shutil.copyfile(arrivals, durable.make_folder(folder / "data" / name) / arrivals.name)


def _link_files(folder: Path, root: Path, stages: Iterable[Stage]) -> None:
    """The files that stages read beside their inputs; one with an absolute path is found as it is."""
    for stage in stages:
        if stage.file is not None and not Path(stage.file).is_absolute():
            link = Path(os.path.normpath(folder / stage.file))
            if not link.is_relative_to(folder):
                raise UsageError(f"{stage.name}.weights.file leads out of the project: link the file into it")
            durable.make_folder(link.parent)
            link.symlink_to((root / stage.file).resolve())


def _source_digest(root: Path, store: Store, old: Recorded) -> str:
    ((name, dataset),) = old.project.datasets.items()
    return source_file.digest(source_file.locate(root, name, dataset.source), store.memo)
