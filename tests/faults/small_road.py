"""The model road of ``small.yaml``, run in this process by the real planner, executor, store and ledger, without Ray.

Only the flow is left out: a loop over ``execute`` takes the place of Prefect, so that a run costs a second.
"""

import importlib
import shutil
import threading
from pathlib import Path

import torch
from synthetic_split import write_split
from tqdm import tqdm

from vitops.compression.export import to_onnx
from vitops.lineage.ledger import Ledger
from vitops.lineage.verify import verify
from vitops.plan.execute import execute
from vitops.plan.opening import open_project
from vitops.plan.request import RunRequest
from vitops.store import manifest
from vitops.store.artifacts import Store
from vitops.store.refs import Ref
from vitops.training import keeper

STAGES = ("teacher", "student", "prune", "export", "quantize", "evaluate", "package", "report")
EXACT = STAGES[:-1]
LAZY = ("jinja2", "onnxruntime", "onnxscript", "timm", "torch._dynamo", "torch.export", "torch.onnx")


class Road:
    """A project in ``root``, made where there is none, and stores of it in any folder."""

    def __init__(self, root):
        self.root = root
        folder = root / "data/toy/splits/all"
        if not folder.is_dir():
            shutil.copy(Path(__file__).with_name("small.yaml"), root / "pipelines.yaml")
            write_split(root)
        path = str(folder.relative_to(root))
        self.split = Ref(kind="split", digest=manifest.check(folder), metadata={"path": path})

    def run(self, home, *, until, reached=lambda stage: None):
        """Bring the store in ``home`` up to date with all stages to ``until``; their digests by name."""
        stages, place = self.open(home, until=until)
        refs = {"split": self.split}
        for stage in stages:
            reached(stage.name)
            refs[stage.name] = execute(place, stage, {role: refs[name] for role, name in stage.inputs.items()}).ref
        return {name: ref.digest for name, ref in refs.items()}

    def open(self, home, *, until=None):
        """The stages of the model plane and a new run of them in the store, which is made if missing."""
        opened = open_project(RunRequest(pipeline="small", root=self.root, home=home, until=until))
        return [stage for stage in opened.stages if not stage.is_data], opened.place()

    def imports(self):
        """Import what the stages import and let torch's exporter build its tables, which takes longer than its work.

        What is left to chance in the stages is made the same in every run.
        """
        stages, _ = self.open(self.root / "unused")
        for root in {root.partition(":")[0] for stage in stages for root in stage.roots}:
            importlib.import_module(root)
        for name in LAZY:
            importlib.import_module(name)
        torch.set_num_threads(1)
        keeper._REPORT_SECONDS = 0.0  # a progress file each step, not each fifth of a second
        tqdm.monitor_interval = 0  # no thread of its own: only one without threads can be forked
        to_onnx(torch.nn.Linear(1, 1), inputs={"x": (1,)}, opset=20)
        assert threading.active_count() == 1, threading.enumerate()


def content(home):
    """All that a disturbed store and an undisturbed one must have in common, as JSON."""
    store, ledger = Store(home), Ledger(home)
    receipts = [receipt for receipt in ledger.entries() if receipt.stage in EXACT]
    files = {digest: {entry.path: entry.sha256 for entry in store.manifest(digest)} for digest in store.digests()}
    exact = {receipt.digest for receipt in receipts}
    named = {sha256 for entries in files.values() for sha256 in entries.values()}
    recorded = {receipt.digest for receipt in ledger.entries()}
    return {
        "receipts": [_timeless(receipt) for receipt in receipts],
        "artifacts": {digest: entries for digest, entries in files.items() if digest in exact},
        "unnamed": sorted({path.name for path in store.blobs.glob("*/*")} - named) + sorted(set(files) - recorded),
        "left over": sorted(_left_over(home)),
    }


def differences(found, expected):
    """Sentences about what is not as in the undisturbed run."""
    return [f"{name}: {found[name]} instead of {expected[name]}" for name in expected if found[name] != expected[name]]


def redone(home, *, more_than):
    """Sentences about trainings that went on further behind what a killed run had reached than that many steps."""
    outcomes = [(receipt.stage, receipt.predicate.outcome) for receipt in Ledger(home).entries()]
    return [
        f"{stage}: {outcome.work_lost.steps} steps done anew, resumed from {outcome.resumed_from}"
        for stage, outcome in outcomes
        if outcome.work_lost and outcome.work_lost.steps > more_than
    ]


def problems(home):
    """What ``vitops verify`` says about the store."""
    return [(str(problem.path.relative_to(home)), problem.sentence) for problem in verify(home, None)]


def _timeless(receipt):
    by_chance = {"when": True, "outcome": {"resumed_from", "work_lost"}}
    predicate = receipt.predicate.model_dump(mode="json", exclude=by_chance)
    return {"files": receipt.files, **predicate}


def _left_over(home):
    """Unfinished work that nobody holds any more; the folder of a killed run, a record without evidence, stays."""
    for path in home.rglob("*"):
        inside = path.relative_to(home)
        private = len(inside.parts) == 2 and inside.parts[0] in ("tmp", "checkpoints") and path.name != "locks"
        if private or (path.name.endswith(".tmp") and inside.parts[0] != "runs"):
            yield str(inside)
