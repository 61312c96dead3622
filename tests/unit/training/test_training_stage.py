"""The training stage from folders to folders, in one process."""

import hashlib
import json

import pytest
import torch
from synthetic_split import write_split

from vitops.data.loader import open_split
from vitops.errors import Interrupted, VitopsError
from vitops.models.artifact import ModelSpec, load
from vitops.store.job import Job, Position
from vitops.training.stage import check_teacher, train

TEACHER = {
    "model": {"kind": "cifar_resnet", "depth": 8},
    "objective": {"kind": "ldam", "drw": {"epoch": 3}},
    "epochs": 4,
    "micro_batches": 2,
    "micro_batch_size": 6,
    "preprocessing": {"size": 16},
    "augment": {"crop": {"kind": "pad", "padding": 1}},
    "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 2e-4, "decay_1d": True},
    "schedule": {"kind": "multistep", "milestones": [3]},
    "sam": {"rho": 0.05},
    "ema": 0.9,
}
STUDENT = {
    "model": {
        "kind": "timm",
        "name": "deit_tiny_distilled_patch16_224",
        "args": {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "drop_path_rate": 0.1},
    },
    "objective": {"kind": "deit_lt", "drw": {"epoch": 1}},
    "epochs": 2,
    "micro_batches": 2,
    "micro_batch_size": 6,
    "preprocessing": {"size": 16},
    "mixup": {},
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("stage"), train=36)


@pytest.fixture(scope="module")
def teacher(split, tmp_path_factory):
    job = job_in(tmp_path_factory.mktemp("teacher"), TEACHER, split=split)
    train(job)
    return job.out


def job_in(root, config, *, stop=None, steps=None, **inputs):
    (root / "out").mkdir(parents=True, exist_ok=True)
    return Job(
        stage="train",
        key="0" * 64,
        parameters={"config": config, "seed": 3},
        inputs=inputs,
        out=root / "out",
        checkpoints=root / "checkpoints",
        progress=root / "progress.json",
        stop=stop,
        resources={"launcher": "local", "checkpoint_steps": steps},
    )


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_teacher_learns_and_is_written_with_its_history(teacher, split):
    assert sorted(path.name for path in teacher.iterdir()) == [
        "ema.safetensors",
        "history.json",
        "model.json",
        "weights.safetensors",
    ]
    history = json.loads((teacher / "history.json").read_text())
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    model, spec = load(teacher)
    assert spec.train_counts == open_split(split).train_counts
    assert check_teacher(model, spec, reader=open_split(split), seed=0) > 2 / 3


def test_a_student_is_distilled_to_the_same_bytes_twice(teacher, split, tmp_path):
    jobs = [job_in(tmp_path / name, STUDENT, split=split, teacher=teacher) for name in ("a", "b")]
    for job in jobs:
        train(job)
    assert digests(jobs[0].out) == digests(jobs[1].out)
    progress = json.loads(jobs[0].progress.read_text())
    assert (progress["epoch"], progress["step"], progress["steps"]) == (1, 3, 3)


def test_asked_to_stop_it_saves_and_goes_on_to_the_same_bytes(teacher, split, tmp_path):
    train(job_in(tmp_path / "whole", STUDENT, split=split, teacher=teacher))
    stop = tmp_path / "stop"
    stop.touch()
    with pytest.raises(Interrupted):
        train(job_in(tmp_path / "cut", STUDENT, stop=stop, split=split, teacher=teacher))
    outcome = train(job_in(tmp_path / "cut", STUDENT, split=split, teacher=teacher))
    assert outcome.resumed_from == Position(epoch=0, step=1)
    assert digests(tmp_path / "cut" / "out") == digests(tmp_path / "whole" / "out")


def test_a_change_of_arithmetic_is_refused_until_allowed_and_then_in_the_receipt(teacher, split, tmp_path, monkeypatch):
    stop = tmp_path / "stop"
    stop.touch()
    with pytest.raises(Interrupted):
        train(job_in(tmp_path / "cut", STUDENT, stop=stop, split=split, teacher=teacher))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    job = job_in(tmp_path / "cut", STUDENT, split=split, teacher=teacher)
    with pytest.raises(VitopsError, match=r"ONEDNN_MAX_CPU_ISA: None -> AVX2.*--allow-environment-change"):
        train(job)
    told = train(job.model_copy(update={"allow_environment_change": True})).facts
    (change,) = told["environment_changed"]
    assert change["changes"] == {"overrides.ONEDNN_MAX_CPU_ISA": [None, "AVX2"]}
    assert told["environment"]["overrides"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_the_receipt_says_in_which_mode_a_model_was_trained(mode, split, tmp_path):
    job = job_in(tmp_path, TEACHER, split=split)
    assert train(job.model_copy(update={"resources": {**job.resources, "mode": mode}})).facts["mode"] == mode


@pytest.mark.parametrize("answer", ["constant", "permuted"])
def test_a_teacher_that_does_not_know_the_labels_is_refused(answer, teacher, split):
    model, spec = load(teacher)
    with torch.no_grad():
        model.head.weight.copy_(model.head.weight.roll(1, 0) if answer == "permuted" else model.head.weight[:1].clone())
    with pytest.raises(VitopsError, match="class-balanced"):
        check_teacher(model, spec, reader=open_split(split), seed=0)


class RightFor(torch.nn.Module):
    """Names the class of a synthetic image by its brightest channel, but two of every ``nth`` images wrongly."""

    def __init__(self, nth):
        super().__init__()
        self.bias, self.nth, self.images = torch.nn.Parameter(torch.zeros(())), nth, 0

    def forward(self, x):
        wrong = (torch.arange(len(x)) + self.images) % self.nth < 2
        self.images += len(x)
        channels = x.mean((2, 3))[:, :2]
        return torch.where(wrong[:, None], channels.flip(1), channels) + self.bias


@pytest.mark.parametrize(("nth", "accepted"), [(10, True), (6, False)])
def test_of_two_classes_three_quarters_are_asked_for(nth, accepted, tmp_path):
    """2 / C would ask a binary teacher for every image: 80 % are enough, two thirds are not."""
    reader = open_split(write_split(tmp_path, classes=2, train=60))
    spec = ModelSpec(builder={}, preprocessing={"size": 16}, classes=reader.classes, train_counts=reader.train_counts)
    if accepted:
        assert 0.75 <= check_teacher(RightFor(nth), spec, reader=reader, seed=0) < 0.9
    else:
        with pytest.raises(VitopsError, match=r"at least 75\.0 % are needed"):
            check_teacher(RightFor(nth), spec, reader=reader, seed=0)


def test_a_teacher_with_its_classes_in_another_order_is_understood(teacher, split):
    model, spec = load(teacher)
    with torch.no_grad():
        model.head.weight.copy_(model.head.weight.roll(1, 0))
    moved = spec.model_copy(update={"classes": [spec.classes[-1], *spec.classes[:-1]]})
    assert check_teacher(model, moved, reader=open_split(split), seed=0) > 2 / 3


def test_a_teacher_of_other_classes_is_refused(teacher, split, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in teacher.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    described = json.loads((other / "model.json").read_text())
    described["classes"] = ["x", "y", "z"]
    (other / "model.json").write_text(json.dumps(described))
    with pytest.raises(VitopsError, match="knows the classes x, y, z, the split has c0, c1, c2"):
        train(job_in(tmp_path / "job", STUDENT, split=split, teacher=other))
