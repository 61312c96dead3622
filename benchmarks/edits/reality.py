"""What vitops plans, what it then does, and what the stages make from nothing: one verdict on each edit.

Each of the three happens in a child of its own that imports the project's stages anew, as a command does; the store,
the ledger and the caches between are the real ones. Import this with the project's copy of vitops first on the path.
"""

import hashlib
import json
import os
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.edits.project import PRESERVING, Project
from vitops.data import versions
from vitops.data.versions import DataStatus
from vitops.lineage.ledger import Ledger
from vitops.plan.code.digest import code_digest, vitops_package
from vitops.plan.execute import Place, execute
from vitops.plan.plan import Planned, examine_stages
from vitops.plan.record import RunRecord
from vitops.plan.stages import Stage
from vitops.store import manifest
from vitops.store.artifacts import Store
from vitops.store.job import Job
from vitops.store.refs import Ref

JSON = dict[str, Any]


@dataclass
class Verdict:
    """What one edit came to."""

    planned: dict[str, str]
    """Stage -> hit, run or waits."""
    done: dict[str, str]
    """Stage -> hit or executed."""
    wrong: list[str] = field(default_factory=list)
    """Stages of which plan and reality differ."""
    stale: list[str] = field(default_factory=list)
    """Exact stages whose artifact is not what they make from nothing."""
    needless: list[str] = field(default_factory=list)
    """Exact stages that were executed although no input differs and their intact artifact had the bytes of now."""


class Reality:
    """Follows one project from edit to edit."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._made: Mapping[str, str] = {}
        self._published: dict[str, str] = {}

    def follow(self, kind: str = "") -> Verdict:
        """Plan, run and make everything from nothing, after an edit of that kind (none for the first time)."""
        project = self._project
        manifest.write(project.data)
        lost = self._lost()
        planned, ran, true = (_in_child(work, project) for work in (_plan, _run, _from_nothing))
        verdict = Verdict(
            planned={name: item["status"] for name, item in planned.items()},
            done={name: item["status"] for name, item in ran.items()},
        )
        known = {key: digest for key, digest in self._published.items() if digest not in lost}
        for name, item in planned.items():
            if not _agrees(item, ran[name], planned, known):
                verdict.wrong.append(name)
        for name, digest in true.items():
            if ran[name]["digest"] != digest:
                verdict.stale.append(name)
            same = self._made.get(name) == digest and all(
                self._made.get(role) == true[role] for role in ran[name]["inputs"]
            )
            if ran[name]["status"] == "executed" and same and digest not in lost:
                verdict.needless.append(name)
        if kind in PRESERVING and self._made and true != self._made:
            raise AssertionError(f"an edit of kind {kind} was meant to preserve behaviour, and did not")
        self._made = true
        self._published |= {item["key"]: item["digest"] for item in ran.values() if item["key"]}
        return verdict

    def _lost(self) -> set[str]:
        """Artifacts of which a blob is not what its name says: a stage has to be executed for them."""
        store = Store(self._project.home)
        broken = {name for name in self._project.damaged if not _intact(store.blob(name))}
        digests = set(self._published.values()) if broken else set()
        return {digest for digest in digests if any(entry.sha256 in broken for entry in store.manifest(digest))}


def _intact(blob: Path) -> bool:
    return blob.is_file() and hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def _agrees(planned: JSON, ran: JSON, plan: Mapping[str, JSON], known: Mapping[str, str]) -> bool:
    """A hit hits with its digest, a run executes under its key.

    One that waits has an input that is not known yet, and executes exactly when its key then names no artifact.
    """
    if planned["status"] == "hit":
        return ran["status"] == "hit" and ran["digest"] == planned["digest"]
    if planned["status"] == "run":
        return ran["status"] == "executed" and ran["key"] == planned["key"]
    unknown = any(plan[name]["status"] != "hit" for name in planned["inputs"])
    return unknown and (ran["status"] == "executed") == (ran["key"] not in known)


def _plan(project: Project) -> dict[str, JSON]:
    store = Store(project.home)
    chosen = _stages(project)
    data = {"split": DataStatus(True, _split(project, store), "")}
    examined = examine_stages(
        chosen,
        pipeline="mini",
        data=data,
        source={},
        store=store,
        ledger=Ledger(project.home),
        package=vitops_package(store.memo),
    )
    inputs = {stage.name: list(stage.inputs.values()) for stage in chosen}
    found: list[Planned] = [item.planned for item in examined]
    store.memo.save()
    return {item.name: {**item.to_json(), "inputs": inputs[item.name]} for item in found}


def _run(project: Project) -> dict[str, JSON]:
    store, chosen = Store(project.home), _stages(project)
    package = vitops_package(store.memo)
    with tempfile.TemporaryDirectory(dir=project.root) as folder:
        place = Place(
            root=project.root,
            store=store,
            ledger=Ledger(project.home),
            record=RunRecord(Path(folder), pipeline="mini", stages=chosen, configuration={}),
            code={stage.name: code_digest(stage.roots, package=package) for stage in chosen},
        )
        metadata = {"path": str(project.data.relative_to(project.root))}
        refs = {"split": Ref(kind="split", digest=_split(project, store), metadata=metadata)}
        found = {"split": {"status": "hit", "digest": refs["split"].digest, "key": None, "inputs": []}}
        for stage in chosen[1:]:
            done = execute(place, stage, {role: refs[name] for role, name in stage.inputs.items()})
            refs[stage.name] = done.ref
            key = place.record.stages[stage.name]["key"]
            status, inputs = "hit" if done.hit else "executed", list(stage.inputs.values())
            found[stage.name] = {"status": status, "digest": done.ref.digest, "key": key, "inputs": inputs}
    store.memo.save()
    return found


def _from_nothing(project: Project) -> dict[str, str]:
    """Digest of what each exact stage makes in a folder of its own, by calling its function and nothing else."""
    import importlib

    found = {"split": _split(project, Store(project.home))}
    with tempfile.TemporaryDirectory(dir=project.root) as place:
        folders = {"split": project.data}
        for stage in _stages(project)[1:]:
            out = folders[stage.name] = Path(place) / stage.name
            out.mkdir()
            module, _, attribute = stage.roots[0].partition(":")
            job = Job(
                stage=stage.name,
                key="0" * 64,
                parameters=stage.parameters,
                inputs={role: folders[name] for role, name in stage.inputs.items()},
                out=out,
                checkpoints=out,
            )
            getattr(importlib.import_module(module), attribute)(job)
            if stage.exactness == "exact":
                found[stage.name] = manifest.digest(manifest.scan_all(out))
    return found


def _stages(project: Project) -> tuple[Stage, ...]:
    import importlib

    document = json.loads((project.root / "parameters.json").read_text())
    chosen: tuple[Stage, ...] = importlib.import_module("vitops.mini.pipeline").stages(document)
    return chosen


def _split(project: Project, store: Store) -> str:
    return versions.digest(project.root, "toy", "split", "all", memo=store.memo)


def _in_child(work: Callable[[Project], Any], project: Project) -> Any:
    """What ``work`` returns in a forked child, as JSON. Raises RuntimeError with the child's traceback."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            answer = {"value": work(project)}
        except BaseException:  # noqa: BLE001 -- handed to the parent, which raises it
            answer = {"error": traceback.format_exc()}
        with os.fdopen(writing, "w") as stream:
            json.dump(answer, stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    answer = json.loads(text)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["value"]
