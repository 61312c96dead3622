"""A pinned model brings the code of its own architecture into the keys, and of no other."""

import json

import pytest
import yaml

from vitops.config.base import Section
from vitops.config.load import load
from vitops.errors import UsageError, VerificationError
from vitops.plan import pinned
from vitops.plan.plan import resolved
from vitops.plan.stages import architectures
from vitops.store.artifacts import Store

PIPELINES = """
datasets:
  digits:
    source: {{kind: arrays, path: data/raw/digits.npz}}
    splits: {{balanced: {{kind: holdout}}}}
pipelines:
  small:
    flow: compress
    dataset: digits
    split: balanced
    student: "{student}"
    teacher: "{teacher}"
    prune:
      finetune:
        objective: {{kind: nvit}}
        epochs: 1
        micro_batch_size: 8
        preprocessing: {{size: 32}}
        optimizer: {{name: adamw, lr: 0.001}}
"""
TIMM, RESNET = "vitops.models.timm_model:build", "vitops.models.cifar_resnet:build"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


@pytest.fixture
def publish(tmp_path, store):
    def make(kind, name="model.json"):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / name).write_text(json.dumps({"builder": {"kind": kind}}))
        return store.publish(folder, "train").digest

    return make


@pytest.fixture
def chosen(tmp_path, store):
    """The resolved stages of the pipeline by name."""

    def resolve(student, teacher, until=None):
        (tmp_path / "pipelines.yaml").write_text(PIPELINES.format(student=student, teacher=teacher))
        return {stage.name: stage for stage in resolved(store, load(tmp_path).only("small"), "small", until=until)}

    return resolve


def test_each_stage_reaches_the_architectures_that_it_rebuilds(publish, chosen):
    found = chosen(publish("timm"), publish("cifar_resnet"))
    built = {name: {TIMM, RESNET} & set(stage.roots) for name, stage in found.items()}
    both = {TIMM, RESNET}
    assert {name: roots for name, roots in built.items() if roots} == {
        "prune": both, "export": {TIMM}, "evaluate": both, "report": both,
    }  # fmt: skip
    pruned = "vitops.models.pruned_vit:build"
    assert {name for name, stage in found.items() if pruned in stage.roots} == {"prune", "export", "evaluate", "report"}
    assert found["prune"].roots[0] == "vitops.compression.pruning.stage:prune"


def test_an_architecture_that_nothing_here_uses_is_no_root(publish, chosen, monkeypatch):
    class Later(Section):
        implementation = "vitops.models.later:build"
        kind: str = "later"

    student = publish("timm")
    before = chosen(student, student)
    assert not any(RESNET in stage.roots for stage in before.values())
    monkeypatch.setattr(pinned, "architectures", lambda: (*architectures(), Later))
    assert chosen(student, student) == before


def test_a_model_that_is_not_in_the_store_is_named_with_its_key_once_a_stage_needs_it(publish, chosen):
    student = publish("timm")
    with pytest.raises(UsageError, match=rf"^pipelines\.small\.teacher: no artifact {'2' * 64} in "):
        chosen(student, "2" * 64)
    with pytest.raises(UsageError, match=r"^pipelines\.small\.student: "):
        chosen("2" * 64, "2" * 64)
    assert list(chosen(student, "2" * 64, until="split")) == ["ingest", "validate", "split"]


def test_an_artifact_that_is_no_model_is_named_with_its_key(publish, chosen):
    model, other = publish("timm"), publish("cifar_resnet", name="report.html")
    with pytest.raises(UsageError, match=rf"^pipelines\.small\.student: artifact {other} is no model"):
        chosen(other, model)
    later = publish("cifar_resnext")
    with pytest.raises(UsageError, match=r"unknown kind 'cifar_resnext'; did you mean 'cifar_resnet'\?"):
        chosen(later, model)


def test_an_altered_description_is_never_read(store, publish, chosen):
    digest = publish("timm")
    blob = store.blob(store.manifest(digest)[0].sha256)
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"timm", b"temm"))
    with pytest.raises(VerificationError, match=digest):
        chosen(digest, digest)


def test_a_further_teacher_is_a_root_of_the_student_and_named_with_its_role(tmp_path, store, publish):
    recipe = {
        "epochs": 1,
        "micro_batch_size": 8,
        "preprocessing": {"size": 32},
        "optimizer": {"name": "sgd", "lr": 0.1},
    }
    train = recipe | {"model": {"kind": "cifar_resnet"}}

    def resolve(digest):
        document = yaml.safe_load(PIPELINES.format(student="", teacher=""))
        document["pipelines"]["small"] |= {
            "flow": "retrain",
            "further_teachers": {"other": digest},
            "teacher": train | {"objective": {"kind": "cross_entropy"}},
            "student": train | {"objective": {"kind": "kd", "teachers": {"other": 1}}},
        }
        (tmp_path / "pipelines.yaml").write_text(yaml.safe_dump(document))
        return {stage.name: stage for stage in resolved(store, load(tmp_path).only("small"), "small")}

    found = resolve(publish("timm"))
    assert {TIMM, RESNET} <= set(found["student"].roots) and TIMM not in found["teacher"].roots
    with pytest.raises(UsageError, match=r"^pipelines\.small\.further_teachers\.other: no artifact"):
        resolve("2" * 64)
