"""A plan says what a run will do: hits hit, runs execute, and a stage waits while an input is not known."""

import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitops.data.versions import DataStatus
from vitops.errors import UsageError
from vitops.lineage.ledger import Ledger
from vitops.lineage.receipts import statement
from vitops.lineage.trace import trace
from vitops.lineage.verify import verify
from vitops.plan import explain as explanation
from vitops.plan import plan as planning
from vitops.plan.code.definitions import Package
from vitops.plan.code.digest import code_digest
from vitops.plan.key import declared_environment, stage_key
from vitops.plan.plan import examine_stages
from vitops.plan.stages import Stage
from vitops.store.artifacts import Store
from vitops.store.job import Outcome

UNCHANGED = {
    kind: DataStatus(unchanged=True, digest=mark * 64, reason="")
    for kind, mark in (("ingest", "a"), ("validate", "b"), ("split", "c"))
}
CODE = {
    "__init__.py": "",
    "data.py": "def split():\n    return 1\n",
    "first.py": "from pkg.shared import helper\n\ndef train():\n    return helper()\n",
    "second.py": "def prune():\n    return 1\n",
    "shared.py": "def helper():\n    return 1\n",
    "third.py": "def report():\n    return 1\n",
}


def stage(name, kind, root, **kwargs):
    values = {
        "parameters": {"config": {"rate": 0.1, "inner": {"depth": 2}}, "seed": 0},
        "libraries": ("pydantic",),
        "environment": {"mode": "exact", "device": "cpu", "threads": 1},
        **kwargs,
    }
    return Stage(name=name, kind=kind, roots=(root,), **values)


STAGES = (
    stage("split", "split", "pkg.data:split"),
    stage("student", "train", "pkg.first:train", inputs={"split": "split"}),
    stage("prune", "prune", "pkg.second:prune", inputs={"split": "split", "model": "student"}),
    stage("report", "report", "pkg.third:report", inputs={"model": "prune"}, exactness="measured"),
)


class World:
    """A project whose stages write the number that their function's source returns."""

    def __init__(self, folder):
        self.code = folder / "pkg"
        self.code.mkdir()
        for name, text in CODE.items():
            (self.code / name).write_text(textwrap.dedent(text))
        self.home, self.out = folder / "home", folder / "out"
        self.stages, self.data = STAGES, UNCHANGED

    def examine(self):
        return examine_stages(
            self.stages,
            pipeline="p",
            data=self.data,
            source={},
            store=Store(self.home),
            ledger=Ledger(self.home),
            package=Package(self.code),
        )

    def plan(self):
        return [item.planned for item in self.examine()]

    def statuses(self):
        return {planned.name: planned.status for planned in self.plan()}

    def run(self):
        """Execute what has no artifact under its key, as the executor does; return (executed, digests)."""
        store, ledger, digests, executed = Store(self.home), Ledger(self.home), {}, []
        for item in self.stages:
            inputs = {role: digests[upstream] for role, upstream in item.inputs.items()}
            code = code_digest(item.roots, package=Package(self.code))
            key = stage_key(item, inputs, code)
            if item.is_data:
                digests[item.name] = self.data[item.kind].digest
                continue
            receipt = ledger.by_key(key)
            if receipt is None or not store.present(receipt.digest):
                executed.append(item.name)
                self._publish(store, ledger, item, key, inputs, code)
                receipt = ledger.by_key(key)
            digests[item.name] = receipt.digest
        return executed, digests

    def _publish(self, store, ledger, item, key, inputs, code):
        module = item.roots[0].split(":")[0].split(".")[1]
        self.out.mkdir(exist_ok=True)
        (self.out / "result").write_text(f"{item.name} {sorted(inputs.items())} {self.result(module)}")
        ref = store.publish(self.out, item.kind)
        ledger.append(
            statement(
                kind=item.kind,
                stage=item.name,
                pipeline="p",
                key=key,
                subject=ref,
                files=store.manifest(ref.digest),
                inputs=inputs,
                parameters=item.parameters,
                code=code,
                environment={"declared": declared_environment(item)},
                outcome=Outcome(),
                started=0.0,
                seconds=0.0,
                who="w",
                host="h",
                seed=0,
                adopted=False,
            )
        )

    def result(self, module):
        return (self.code / f"{module}.py").read_text().split("return ")[-1]

    def edit(self, module, old, new):
        path = self.code / f"{module}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def change(self, name, **values):
        self.stages = tuple(replace(item, **values) if item.name == name else item for item in self.stages)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_nothing_has_run_yet(world):
    found = world.plan()
    assert [(item.name, item.status) for item in found] == [
        ("split", "hit"),
        ("student", "run"),
        ("prune", "waits"),
        ("report", "waits"),
    ]
    assert found[0].digest == "c" * 64
    assert found[1].reason == "not run yet" and found[1].key and found[1].digest is None
    assert found[2].key is None and found[2].reason == "waits for student"
    assert found[3].key is None and found[3].reason == "waits for prune"


def test_after_a_run_everything_hits_with_its_digest(world):
    _, digests = world.run()
    found = world.plan()
    assert {item.name: item.digest for item in found} == digests
    assert all(item.status == "hit" and item.key and item.reason == "unchanged" for item in found)
    assert world.run()[0] == []


def test_the_document_has_the_fields_that_scripts_rely_on(world):
    document = planning.document("p", world.plan())
    assert set(document) == {"pipeline", "stages"}
    assert [list(item) for item in document["stages"]] == [
        ["name", "kind", "exactness", "key", "status", "digest", "reason"]
    ] * len(STAGES)


def test_editing_code_that_one_stage_reaches_runs_it_and_names_the_definition(world):
    world.run()
    world.edit("shared", "return 1", "return 2")
    found = {item.planned.name: item for item in world.examine()}
    assert {name: item.planned.status for name, item in found.items()} == {
        "split": "hit",
        "student": "run",
        "prune": "waits",
        "report": "waits",
    }
    assert [(change.what, change.name) for change in found["student"].changes] == [("definition", "pkg.shared.helper")]
    assert found["student"].planned.reason == "definition pkg.shared.helper changed"
    assert found["prune"].changes == ()


def test_editing_a_comment_or_a_docstring_changes_nothing(world):
    world.run()
    world.edit("shared", "def helper():", '# why\ndef helper():\n    """What."""')
    assert set(world.statuses().values()) == {"hit"}


def test_a_waiting_stage_is_a_hit_when_its_inputs_come_out_the_same(world):
    world.run()
    world.edit("shared", "return 1", "return 1 + 0")  # the student's own file, and so its output, stays the same
    assert world.statuses() == {"split": "hit", "student": "run", "prune": "waits", "report": "waits"}
    assert world.run()[0] == ["student"]


def test_going_back_to_earlier_code_hits_again(world):
    world.run()
    world.edit("second", "return 1", "return 2")
    world.run()
    world.edit("second", "return 2", "return 1")
    assert set(world.statuses().values()) == {"hit"}


def test_changed_parameters_inputs_libraries_and_environment_are_named(world):
    world.run()
    values = {"config": {"rate": 0.2, "inner": {"depth": 2, "width": 3}}, "seed": 0}
    environment = {"mode": "exact", "device": "cpu", "threads": 2}
    world.change("student", parameters=values, libraries=("pydantic", "pyyaml"), environment=environment)
    world.data = UNCHANGED | {"split": DataStatus(unchanged=True, digest="d" * 64, reason="")}
    found = {item.planned.name: item for item in world.examine()}["student"].changes
    assert [(change.what, change.name) for change in found] == [
        ("input", "split"),
        ("parameter", "inner.width"),
        ("parameter", "rate"),
        ("library", "pyyaml"),
        ("environment", "threads"),
    ]
    rate = found[2]
    assert (rate.old, rate.new) == (0.1, 0.2)
    assert str(rate) == "parameter rate: 0.1 -> 0.2"
    assert (found[0].old, found[0].new) == ("c" * 64, "d" * 64)


def test_a_definition_that_came_or_went_is_named(world):
    world.run()
    world.edit("first", "from pkg.shared import helper\n", "def helper():\n    return 1\n")
    found = {item.planned.name: item for item in world.examine()}["student"].changes
    named = {change.name: (change.old is None, change.new is None) for change in found}
    assert named == {
        "pkg.first.helper": (True, False),
        "pkg.first.train": (False, False),
        "pkg.shared.helper": (False, True),
    }


def test_an_altered_artifact_is_run_again(world):
    _, digests = world.run()
    store = Store(world.home)
    blob = store.blob(store.manifest(digests["student"])[0].sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"altered")
    found = {item.name: item for item in world.plan()}
    assert found["student"].status == "run" and "altered or gone" in found["student"].reason
    assert found["prune"].status == "waits"
    assert world.run()[0] == ["student"]
    assert set(world.statuses().values()) == {"hit"}


def test_data_that_dvc_finds_changed_runs_with_its_reason(world):
    world.run()
    world.data = UNCHANGED | {"split": DataStatus(unchanged=False, digest=None, reason="seed changed")}
    found = {item.name: item for item in world.plan()}
    assert (found["split"].status, found["split"].reason) == ("run", "seed changed")
    assert found["student"].status == "waits"


def test_another_source_is_an_input_that_changed(tmp_path):
    world = World(tmp_path)
    world.stages = (stage("ingest", "ingest", "pkg.data:split"),)
    keys = []
    for source in ({"source": "1" * 64}, {"source": "2" * 64}, {}):
        (examined,) = examine_stages(
            world.stages,
            pipeline="p",
            data=UNCHANGED,
            source=source,
            store=Store(world.home),
            ledger=Ledger(world.home),
            package=Package(world.code),
        )
        keys.append(examined.planned.key)
    assert len(set(keys)) == 3 and None not in keys


def test_a_stage_that_waits_for_several_names_the_first(world):
    last = stage("evaluate", "evaluate", "pkg.third:report", inputs={"a": "prune", "b": "student", "c": "split"})
    world.stages = (*STAGES, last)
    assert world.plan()[-1].reason == "waits for student"


def test_a_damaged_receipt_is_not_believed_and_its_stage_gets_another(world):
    _, digests = world.run()
    path = Ledger(world.home).path(1)
    raw = bytearray(path.read_bytes())
    for position in (5, len(raw) // 2, len(raw) - 3):
        damaged = raw.copy()
        damaged[position] ^= 1
        path.chmod(0o644)
        path.write_bytes(damaged)
        assert world.statuses() == {"split": "hit", "student": "hit", "prune": "run", "report": "waits"}
    assert world.run() == (["prune"], digests)
    assert set(world.statuses().values()) == {"hit"}
    (problem,) = verify(world.home, None)
    assert problem.path == path and problem.sentence.endswith("Restore the file from a backup.")
    tree = trace(Ledger(world.home), digests["report"])
    assert [node.digest for _, _, node, _ in tree.walk()] == [digests["report"], digests["prune"]]


def test_a_missing_source_is_named_before_anything_is_planned(tmp_path):
    text = "datasets: {d: {source: {kind: folder, path: raw}, splits: {s: {kind: holdout}}}}\npipelines: {}\n"
    (tmp_path / "pipelines.yaml").write_text(text)
    store = Store(tmp_path / "home")
    with pytest.raises(UsageError, match="path names raw, which is not there"):
        planning.source_input(tmp_path, "d", store.memo)
    (tmp_path / "raw" / "cat").mkdir(parents=True)
    (tmp_path / "raw" / "cat" / "1.png").write_bytes(b"1")
    first = planning.source_input(tmp_path, "d", store.memo)
    (tmp_path / "raw" / "cat" / "2.png").write_bytes(b"2")
    assert set(first) == {"source"} and planning.source_input(tmp_path, "d", store.memo) != first


def test_planning_imports_nothing_heavy():
    program = (
        "import sys, vitops.plan.plan, vitops.plan.explain, vitops.plan.data_code, vitops.config.load\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'pandas', 'timm', 'ray', 'prefect', 'dvc', 'boto3', 'botocore'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_explain_writes_one_document(world):
    world.run()
    world.edit("second", "return 1", "return 2")
    document = explanation.document("p", world.examine())
    assert [(item["name"], item["status"]) for item in document["stages"]] == [
        ("split", "hit"),
        ("student", "hit"),
        ("prune", "run"),
        ("report", "waits"),
    ]
    (change,) = document["stages"][2]["changes"]
    assert set(change) == {"what", "name", "old", "new"}
    assert (change["what"], change["name"]) == ("definition", "pkg.second.prune")


@settings(max_examples=15, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.sampled_from(["first", "second", "third", "shared"]), st.integers(1, 3)), min_size=1, max_size=6
    )
)
def test_planned_hits_hit_and_planned_runs_execute(edits, tmp_path_factory):
    """Over any history of edits: a hit never executes, a run always does, a waiting stage only for a new input."""
    world = World(tmp_path_factory.mktemp("history"))
    _, digests = world.run()
    for module, value in edits:
        path = world.code / f"{module}.py"
        body = path.read_text()
        path.write_text(body[: body.rindex("return")] + f"return {value}\n" if module != "first" else body + "\n#\n")
        planned = world.plan()
        executed, after = world.run()
        for item in planned:
            if item.status == "hit":
                assert item.name not in executed and after[item.name] == item.digest
            elif item.status == "run":
                assert item.name in executed
            else:
                inputs = {entry.name: entry.inputs for entry in STAGES}[item.name].values()
                if all(after[name] == digests[name] for name in inputs):
                    assert item.name not in executed or module in {"second", "third"}
        digests = after
        assert set(world.statuses().values()) == {"hit"}
