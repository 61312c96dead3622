"""The DAG and the stage keys are functions of the resolved configuration, and of what may change bytes alone."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter

from vitops.config.base import Section, later_field
from vitops.config.compression import Export
from vitops.config.pipelines import Project
from vitops.errors import UsageError
from vitops.plan import stages as stages_module
from vitops.plan.code.digest import CodeDigest
from vitops.plan.key import declared_environment, library_version, stage_key
from vitops.plan.plan import wanted
from vitops.plan.stages import Stage, stages

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"
CODE = CodeDigest("c" * 64, {"vitops.f": "f" * 64})
RECIPE = {
    "epochs": 2,
    "micro_batches": 4,
    "micro_batch_size": 8,
    "preprocessing": {"size": 32},
    "optimizer": {"name": "adamw", "lr": 0.001},
}
TEACHER = RECIPE | {"objective": {"kind": "ldam"}, "model": {"kind": "cifar_resnet", "depth": 8}}
STUDENT = RECIPE | {
    "objective": {"kind": "deit_lt", "drw": {"epoch": 1}},
    "model": {"kind": "timm", "name": "deit_tiny_distilled_patch16_224"},
}
PRUNE = {"finetune": RECIPE | {"objective": {"kind": "nvit"}}}
DATASET = {
    "source": {"kind": "arrays", "path": "data/raw/digits.npz"},
    "splits": {
        "balanced": {"kind": "holdout"},
        "longtail": {"kind": "longtail", "imbalance_factor": 5},
    },
}
RETRAIN = {"flow": "retrain", "dataset": "digits", "split": "longtail"}
RETRAIN |= {"teacher": TEACHER, "student": STUDENT, "prune": PRUNE}
COMPRESS = {"flow": "compress", "dataset": "digits", "split": "longtail", "prune": PRUNE}
COMPRESS |= {"student": "1" * 64, "teacher": "2" * 64}


def project(**changes):
    retrain = RETRAIN | changes.pop("retrain", {})
    pipelines = {"one": retrain, "two": retrain | changes.pop("two", {}), "small": COMPRESS}
    return Project.model_validate({"datasets": {"digits": DATASET | changes}, "pipelines": pipelines})


def by_name(project, pipeline="one"):
    return {stage.name: stage for stage in stages(project, pipeline)}


def keys(project, pipeline="one"):
    """Keys of all stages, as if every input had the same digest."""
    return {name: key_of(stage) for name, stage in by_name(project, pipeline).items()}


def key_of(stage: Stage) -> str:
    return stage_key(stage, dict.fromkeys(stage.inputs, "0" * 64), CODE)


def test_retrain_has_its_stages_in_an_order_in_which_inputs_come_first():
    found = stages(project(), "one")
    assert [stage.name for stage in found] == [
        *("ingest", "validate", "split", "teacher", "student", "prune"),
        *("export", "quantize", "evaluate", "package", "report"),
    ]
    for place, stage in enumerate(found):
        assert set(stage.inputs.values()) <= {earlier.name for earlier in found[:place]}
    assert {stage.name for stage in found if stage.exactness == "measured"} == {"report"}
    assert not any("report" in stage.inputs.values() for stage in found)


def test_roles_name_who_reads_whom():
    found = by_name(project())
    assert found["student"].inputs == {"split": "split", "teacher": "teacher"}
    assert found["prune"].inputs == {"split": "split", "model": "student", "teacher": "teacher"}
    assert found["export"].inputs == {"split": "split", "model": "prune"}
    assert set(found["evaluate"].inputs) == {"split", "teacher", "student", "prune", "export", "quantize"}
    assert set(found["report"].inputs) == {*found["evaluate"].inputs, "evaluate", "package"}


def test_distill_ends_with_the_students_accuracy_and_needs_no_teacher():
    common = {"flow": "distill", "dataset": "digits", "split": "longtail"}
    pipelines = {
        "taught": common | {"teacher": TEACHER, "student": STUDENT},
        "alone": common | {"student": TEACHER | {"objective": {"kind": "cross_entropy"}}},
    }
    distilled = Project.model_validate({"datasets": {"digits": DATASET}, "pipelines": pipelines})
    taught, alone = by_name(distilled, "taught"), by_name(distilled, "alone")
    assert list(taught) == ["ingest", "validate", "split", "teacher", "student", "evaluate"]
    assert list(alone) == ["ingest", "validate", "split", "student", "evaluate"]
    assert taught["evaluate"].inputs == {"split": "split", "teacher": "teacher", "student": "student"}
    assert alone["evaluate"].inputs == {"split": "split", "student": "student"}
    assert key_of(taught["student"]) == keys(project())["student"], "a student is a hit for both flows"


def test_compress_pins_student_and_teacher_by_digest():
    found = by_name(project(), "small")
    assert not {"teacher", "student"} & set(found)
    assert found["prune"].pinned == {"model": "1" * 64, "teacher": "2" * 64}
    assert found["evaluate"].pinned == {"student": "1" * 64, "teacher": "2" * 64}
    assert found["prune"].inputs == {"split": "split"}
    other = Project.model_validate(
        {"datasets": {"digits": DATASET}, "pipelines": {"small": COMPRESS | {"teacher": "3" * 64}}}
    )
    before, after = keys(project(), "small"), keys(other, "small")
    assert {name for name in before if before[name] != after[name]} == {"prune", "evaluate", "report"}


def test_a_teacher_named_by_its_digest_is_not_trained_again():
    found = by_name(project(retrain={"teacher": "2" * 64}))
    assert "teacher" not in found
    assert found["student"].inputs == {"split": "split"}
    for name in ("student", "prune", "evaluate", "report"):
        assert found[name].pinned == {"teacher": "2" * 64} and "2" * 64 in found[name].rebuilds
    trained = by_name(project())
    digests = {"split": "0" * 64, "teacher": "2" * 64}
    assert trained["student"].parameters == found["student"].parameters
    assert stage_key(trained["student"], digests, CODE) == stage_key(found["student"], {"split": "0" * 64}, CODE)


def test_further_teachers_are_pinned_inputs_of_the_student_alone():
    nkd = STUDENT | {"objective": {"kind": "nkd", "teachers": {"teacher": 1, "other": 3}}}
    one = {"student": nkd, "further_teachers": {"other": "3" * 64}}
    before, found = by_name(project(retrain=one)), by_name(project(retrain=one | {"seed": 0}))
    assert found["student"].pinned == {"other": "3" * 64} and found["student"].rebuilds == ("3" * 64,)
    assert found["student"].inputs == {"split": "split", "teacher": "teacher"}
    assert "vitops.models.pruned_vit:build" in found["student"].roots
    after = by_name(project(retrain=one | {"further_teachers": {"other": "4" * 64}}))
    assert {name for name in before if key_of(before[name]) != key_of(after[name])} == {"student"}
    assert not any(found[name].pinned for name in found.keys() - {"student"})


def test_roots_are_the_function_the_chosen_implementations_and_their_configuration():
    found = by_name(project())
    assert found["student"].roots[0] == "vitops.training.stage:train"
    assert {
        "vitops.losses.deit_lt:DeitLt",
        "vitops.models.timm_model:build",
        "vitops.models.cifar_resnet:build",  # the teacher is rebuilt from its artifact
        "vitops.config.objectives:Drw",
        "vitops.data.kinds.classification",
    } <= set(found["student"].roots)
    assert "vitops.losses.ldam:Ldam" not in found["student"].roots
    assert "vitops.losses.deit_lt:DeitLt" not in found["teacher"].roots
    assert "vitops.models.timm_model:build" not in found["teacher"].roots
    assert "vitops.data.splits.holdout:holdout" not in found["split"].roots
    assert not any(root.startswith(("tasks", "flows")) for stage in found.values() for root in stage.roots)


def test_equal_work_has_equal_keys_in_every_pipeline():
    one, two = keys(project(), "one"), keys(project(), "two")
    assert {name for name in one if one[name] != two[name]} == {"package"}  # its card names the pipeline
    shared = keys(project(), "small")
    assert {name: shared[name] for name in ("export", "quantize")}.items() <= keys(project()).items()


@pytest.mark.parametrize(
    ("change", "affected"),
    [
        ({"teacher": TEACHER | {"epochs": 3}}, {"teacher"}),
        ({"prune": PRUNE | {"target": 0.4}}, {"prune"}),
        ({"report": {"latency_runs": 20}}, {"report"}),
        ({"evaluate": {"many": 50}}, {"evaluate"}),
        ({"split": "balanced"}, {"split"}),
        ({"resources": {"workers": 4}}, set()),
        ({"resources": {"checkpoint_seconds": 1.0, "launcher": "local"}}, set()),
        ({"resources": {"mode": "fast"}}, {"teacher", "student", "prune"}),
        ({"resources": {"teacher_cache_gib": 1.0}}, set()),
    ],
)
def test_a_value_changes_the_keys_of_the_stages_that_read_it(change, affected):
    before, after = keys(project()), keys(project(retrain=change))
    assert {name for name in before if before[name] != after[name]} == affected


def elsewhere(**weights):
    model = {"model": {"kind": "cifar_resnet", "depth": 8}, "preprocessing": {"size": 32}}
    return {"teacher": model | {"weights": {"file": "raw/a.safetensors", "sha256": "a" * 64} | weights}}


def test_weights_from_elsewhere_are_a_stage_whose_key_has_their_digest_and_not_their_place():
    found = by_name(project(retrain=elsewhere()))["teacher"]
    assert (found.kind, found.file, dict(found.inputs)) == ("convert", "raw/a.safetensors", {"split": "split"})
    assert found.parameters["config"]["weights"] == {"sha256": "a" * 64}
    assert {"vitops.training.convert:convert", "vitops.models.cifar_resnet:build"} <= set(found.roots)
    before = keys(project(retrain=elsewhere()))
    assert keys(project(retrain=elsewhere(file="/mnt/b.safetensors"))) == before
    other = keys(project(retrain=elsewhere(sha256="b" * 64)))
    assert {name for name in before if before[name] != other[name]} == {"teacher"}
    student = by_name(project(retrain=elsewhere()))["student"]
    assert student.inputs["teacher"] == "teacher" and student.roots == by_name(project())["student"].roots


def test_seed_threads_and_device_change_every_stage_of_the_model_plane_and_no_data_stage():
    plane = {"teacher", "student", "prune", "export", "quantize", "evaluate", "package", "report"}
    for change in ({"seed": 1}, {"resources": {"threads": 2}}, {"resources": {"device": "cuda"}}):
        before, after = keys(project()), keys(project(retrain=change))
        assert {name for name in before if before[name] != after[name]} == plane


def test_the_worker_count_counts_in_fast_mode_alone():
    fast = {"mode": "fast", "workers": 2}
    before = keys(project(retrain={"resources": fast}))
    after = keys(project(retrain={"resources": fast | {"workers": 4}}))
    assert {name for name in before if before[name] != after[name]} == {"teacher", "student", "prune"}


def test_gates_and_source_reach_their_own_data_stage_alone():
    before = keys(project())
    gates = keys(project(gates={"min_rows": 5}))
    source = keys(project(source={"kind": "arrays", "path": "elsewhere.npz"}))
    assert {name for name in before if before[name] != gates[name]} == {"validate"}
    assert {name for name in before if before[name] != source[name]} == {"ingest"}


def test_inputs_code_and_libraries_are_in_the_key(monkeypatch):
    stage = by_name(project())["export"]
    inputs = {"split": "0" * 64, "model": "1" * 64}
    key = stage_key(stage, inputs, CODE)
    assert stage_key(stage, inputs | {"model": "2" * 64}, CODE) != key
    assert stage_key(stage, inputs, CodeDigest("d" * 64, {})) != key
    assert declared_environment(stage)["libraries"]["torch"] == library_version("torch")
    monkeypatch.setattr("vitops.plan.key.library_version", lambda name: "0")
    assert stage_key(stage, inputs, CODE) != key


class ExportWithMore(Export):
    """Export as a later release might have it: one field more, neutral at its default."""

    fold: bool = later_field(False)


class ExportWithOtherDefault(Export):
    """Export with a changed default."""

    opset: int = Field(21, ge=18)


def test_a_later_field_at_its_neutral_value_changes_no_key_but_a_changed_default_does():
    stage = by_name(project())["export"]
    assert ExportWithMore().parameters() == Export().parameters() == stage.parameters["config"]
    assert ExportWithMore(fold=True).parameters() != Export().parameters()
    assert ExportWithOtherDefault().parameters() != Export().parameters()


class _Known(Section):
    kind: Literal["known"] = "known"


class _New(Section):
    kind: Literal["new"] = "new"


def test_one_more_member_of_a_union_changes_no_parameters():
    one = TypeAdapter(Annotated[_Known, Field()]).validate_python({"kind": "known"})
    two = TypeAdapter(Annotated[_Known | _New, Field(discriminator="kind")]).validate_python({"kind": "known"})
    assert one.parameters() == two.parameters()


def test_a_stage_may_be_named_after_its_task():
    stage = Stage("train@task-03", "train", {}, ("vitops.errors",), (), {}, inputs={"split": "split"})
    other = Stage("train@task-04", "train", {}, ("vitops.errors",), (), {}, inputs={"split": "split"})
    assert key_of(stage) == key_of(other)
    assert [item.name for item in wanted([stage, other], "train@task-03")] == ["train@task-03"]


def test_until_keeps_a_stage_and_what_it_needs():
    found = stages(project(), "one")
    assert [stage.name for stage in wanted(found, "export")] == [
        *("ingest", "validate", "split", "teacher", "student", "prune", "export")
    ]
    assert [stage.name for stage in wanted(found, "teacher")] == ["ingest", "validate", "split", "teacher"]
    assert wanted(found, None) == found
    with pytest.raises(UsageError, match="did you mean 'student'"):
        wanted(found, "studnet")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ones", {}, "no pipeline 'ones'; did you mean 'one'"),
        ("one", {"dataset": "digit"}, "no dataset 'digit'; did you mean 'digits'"),
        ("one", {"split": "long"}, "no split 'long'"),
    ],
)
def test_unknown_names_are_usage_errors(name, change, message):
    with pytest.raises(UsageError, match=message):
        stages(project(retrain=change), name)


def test_every_library_that_enters_a_key_is_declared_by_the_project():
    kinds = {stage.kind for stage in stages(project(), "one")}
    named = {library for kind in kinds for library in stages_module.libraries(kind)}
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    assert named <= {re.split(r"[\[<>=!~; ]", requirement)[0] for requirement in declared}
    assert all(library_version(name) != "absent" for name in named)
