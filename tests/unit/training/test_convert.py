"""Weights from elsewhere become a model artifact that teaches as any other, or a sentence says why not."""

import hashlib
import json

import pytest
import timm
import torch
from exact_methods import GUIDE, PLAIN
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from synthetic_split import write_split

from vitops.config.pretrained import Pretrained
from vitops.data.loader import open_split
from vitops.errors import UsageError, VitopsError
from vitops.models import load
from vitops.plan.stages import Stage
from vitops.plan.weights import check_files
from vitops.store.job import Job
from vitops.store.stat_memo import StatMemo
from vitops.training import Comm
from vitops.training.convert import convert
from vitops.training.preflight import check_models
from vitops.training.stage import check_teacher, train_rank

NAME = "test_resnet.r160_in1k"
STUDENT = {**PLAIN, "objective": {"kind": "nkd"}, "mixup": {"label_smoothing": 0.0}, "epochs": 1}
STUDENT |= {"schedule": {"kind": "cosine"}}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("data"), train=48)


@pytest.fixture(scope="module")
def guide(split, tmp_path_factory):
    """A model that learned the split, as an artifact."""
    job = job_in(tmp_path_factory.mktemp("guide"), GUIDE, split=split)
    train_rank(job, Comm.single())
    return job.out


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A machine without network, whose cache of the hub lies in this folder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def job_in(root, config, *, file=None, **inputs):
    (root / "out").mkdir(parents=True)
    return Job(
        stage="teacher",
        key="0" * 64,
        parameters={"config": config, "seed": 3},
        inputs=inputs,
        file=file,
        out=root / "out",
        checkpoints=root / "checkpoints",
        resources={"launcher": "local"},
    )


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def section(file, **changes):
    values = {
        "model": GUIDE["model"],
        "preprocessing": GUIDE["preprocessing"],
        "weights": {"file": str(file), "sha256": sha256(file)},
    }
    return Pretrained.model_validate(values | changes)


def converted(root, section, *, split, file):
    job = job_in(root, section.identity(), file=file, split=split)
    return convert(job), job.out


def stage(section):
    return Stage(
        "teacher",
        "convert",
        {"config": section.identity()},
        ("vitops.errors",),
        (),
        {},
        file=getattr(section.weights, "file", None),
    )


def cached(hub, state):
    """Put a file of timm's into the hub's cache, as the hub's own client lays it out."""
    folder = hub / f"models--timm--{NAME}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    file = folder / "snapshots" / ("a" * 40) / "model.safetensors"
    save_file(state, file)
    return file


def timm_section(classes=None, **weights):
    values = {"model": {"kind": "timm", "name": "test_resnet"}, "preprocessing": {"size": 64}}
    return Pretrained.model_validate({**values, "classes": classes, "weights": {"timm": NAME, **weights}})


def imagenet_names():
    """A thousand outputs, among them the classes of the split, in an order of their own."""
    names = [f"other {number}" for number in range(1000)]
    names[7], names[300], names[999] = "c2", "c0", "c1"
    return names


def test_a_file_becomes_an_artifact_with_the_same_weights_that_passes_the_gate(guide, split, tmp_path):
    file = guide / "weights.safetensors"
    outcome, out = converted(tmp_path, section(file), split=split, file=file)
    assert sorted(path.name for path in out.iterdir()) == ["history.json", "model.json", "weights.safetensors"]
    assert (out / "weights.safetensors").read_bytes() == file.read_bytes()
    assert outcome.facts["weights"] == {"file": file.name, "sha256": sha256(file)}
    model, spec = load(out)
    assert check_teacher(model, spec, reader=open_split(split), seed=0) > 2 / 3


def test_it_teaches_to_the_bits_of_the_teacher_that_was_trained_here(guide, split, tmp_path):
    file = guide / "weights.safetensors"
    _, out = converted(tmp_path / "converted", section(file), split=split, file=file)
    jobs = [
        job_in(tmp_path / name, STUDENT, split=split, teacher=teacher)
        for name, teacher in (("one", guide), ("two", out))
    ]
    for job in jobs:
        train_rank(job, Comm.single())
    assert sha256(jobs[0].out / "weights.safetensors") == sha256(jobs[1].out / "weights.safetensors")


def test_outputs_are_chosen_and_ordered_by_the_names_of_their_classes(guide, split, tmp_path):
    state = load_file(guide / "weights.safetensors")
    rows = state["head.weight"]
    state["head.weight"] = torch.stack([rows[2], torch.ones_like(rows[0]), rows[0], rows[1]])
    file = tmp_path / "moved.safetensors"
    save_file(state, file)
    _, out = converted(tmp_path, section(file, classes=["c2", "unknown", "c0", "c1"]), split=split, file=file)
    assert torch.equal(load_file(out / "weights.safetensors")["head.weight"], rows)
    with pytest.raises(UsageError, match=r"none of the 4 outputs is called c1"):
        converted(tmp_path / "b", section(file, classes=["c2", "x", "c0", "y"]), split=split, file=file)


def test_a_teacher_whose_outputs_mean_other_classes_is_refused_by_the_gate(guide, split, tmp_path):
    file = guide / "weights.safetensors"
    _, out = converted(tmp_path, section(file, classes=["c1", "c2", "c0"]), split=split, file=file)
    with pytest.raises(VitopsError, match="class-balanced"):
        train_rank(job_in(tmp_path / "student", STUDENT, split=split, teacher=out), Comm.single())


def changed(state, change):
    state = dict(state)
    if change == "missing":
        del state["bn1.weight"]
    elif change == "unexpected":
        state["extra.weight"] = torch.zeros(2)
    elif change == "shape":
        state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    return state


def test_arguments_that_would_load_something_else_are_refused(hub, split, tmp_path):
    cached(hub, timm.create_model("test_resnet").state_dict())
    model = {"kind": "timm", "name": "test_resnet", "args": {"checkpoint_path": "other.pth"}}
    wanted = Pretrained.model_validate(timm_section(imagenet_names()).parameters() | {"model": model})
    for check in (
        lambda: check_models("mine", [stage(wanted)]),
        lambda: converted(tmp_path, wanted, split=split, file=None),
    ):
        with pytest.raises(UsageError, match="may not set checkpoint_path"):
            check()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", r"it lacks bn1\.weight"),
        ("unexpected", r"it has besides extra\.weight"),
        ("shape", r"of another shape: conv1\.weight is \(16, 1, 3, 3\) and not \(16, 3, 3, 3\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named_before_the_first_stage_and_in_the_stage(
    change, words, guide, split, tmp_path
):
    file = tmp_path / "other.safetensors"
    save_file(changed(load_file(guide / "weights.safetensors"), change), file)
    with pytest.raises(UsageError, match=rf"pipelines\.mine\.teacher: .*{words}"):
        check_models("mine", [stage(section(file))])
    with pytest.raises(UsageError, match=words):
        converted(tmp_path, section(file), split=split, file=file)


def test_a_file_that_is_missing_or_another_or_no_safetensors_is_refused_before_the_first_stage(guide, tmp_path):
    file = tmp_path / "copy.safetensors"
    file.write_bytes((guide / "weights.safetensors").read_bytes())
    found, memo = stage(section(file)), StatMemo(tmp_path / "memo")
    assert check_files(tmp_path, "mine", [found], memo=memo) == []
    check_models("mine", [found])
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    for check in (lambda: check_files(tmp_path, "mine", [found], memo=memo), lambda: check_models("mine", [found])):
        with pytest.raises(UsageError, match=r"pipelines\.mine\.teacher\.weights: .* is asked for"):
            check()
    file.write_bytes(b"not tensors")
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        check_models("mine", [stage(section(file))])
    file.unlink()
    with pytest.raises(UsageError, match=r"pipelines\.mine\.teacher\.weights\.file names .* not there"):
        check_files(tmp_path, "mine", [found], memo=memo)


def test_the_place_of_a_file_is_in_no_parameter_and_its_digest_is(guide, tmp_path):
    other = tmp_path / "elsewhere.safetensors"
    other.write_bytes((guide / "weights.safetensors").read_bytes())
    one, two = section(guide / "weights.safetensors"), section(other)
    assert one.identity() == two.identity() != one.parameters()
    assert one.identity()["weights"] == {"sha256": sha256(other)}


def test_timms_weights_come_from_the_hubs_cache_without_network(hub, split, tmp_path):
    torch.manual_seed(1)
    source = timm.create_model("test_resnet")
    file = cached(hub, source.state_dict())
    wanted = timm_section(imagenet_names(), sha256=sha256(file))
    assert check_files(tmp_path, "mine", [stage(wanted)], memo=StatMemo(tmp_path / "memo")) == []
    check_models("mine", [stage(wanted)])
    _, out = converted(tmp_path, wanted, split=split, file=None)
    model, _ = load(out)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), source.eval()(images)[:, [300, 999, 7]])
    with pytest.raises(UsageError, match=r"teacher\.weights: .* is asked for"):
        check_models("mine", [stage(timm_section(imagenet_names(), sha256="0" * 64))])


def test_a_download_is_announced_and_without_network_refused_before_the_first_stage(hub, tmp_path):
    wanted = stage(timm_section(imagenet_names()))
    (note,) = check_files(tmp_path, "mine", [wanted], memo=StatMemo(tmp_path / "memo"))
    assert f"downloads model.safetensors of timm/{NAME}" in note and str(hub) in note and "name a local" in note
    with pytest.raises(
        UsageError, match=r"pipelines\.mine\.teacher\.weights\.timm: .* must be downloaded, and .* no way"
    ):
        check_models("mine", [wanted])


def test_weights_that_timm_does_not_have_or_with_other_outputs_are_refused(hub, split, tmp_path):
    cached(hub, timm.create_model("test_resnet").state_dict())
    with pytest.raises(UsageError, match=r"has 1000 outputs, but 2 classes are named"):
        check_models("mine", [stage(timm_section(["c0", "c1"]))])
    with pytest.raises(UsageError, match=r"has 1000 outputs, but 3 classes"):
        converted(tmp_path, timm_section(), split=split, file=None)


def test_the_history_of_a_converted_model_is_empty(guide, split, tmp_path):
    file = guide / "weights.safetensors"
    _, out = converted(tmp_path, section(file), split=split, file=file)
    assert json.loads((out / "history.json").read_text()) == []
