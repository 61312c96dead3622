"""What teachers said is kept and found again, and changes no bit of a training: whole, torn, full or shared."""

import json

import pytest
import torch
from exact_methods import PLAIN, STUDENT, Methods, Ranks, digests
from safetensors.torch import load

from vitops.errors import Interrupted
from vitops.training import Comm
from vitops.training.stage import train_rank
from vitops.training.teacher_cache import TeacherCache

HARD = {**PLAIN, "mixup": {"label_smoothing": 0.0}}
CONFIGS = {
    "deit_lt": STUDENT,
    "deit_soft": {**STUDENT, "objective": {"kind": "deit_soft"}},
    "kd": {**HARD, "objective": {"kind": "kd"}},
    "sam": {**HARD, "objective": {"kind": "dkd", "teacher_size": 24}, "sam": {"rho": 0.05}},
}
STEPS = 2 * 6 * 4
"""Micro-batches of a training."""


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    return Methods(tmp_path_factory.mktemp("cache"))


def job_of(methods, name, config, *, caches=None, gib=0.01, **resources):
    resources |= {"teacher_cache_gib": gib} if caches else {}
    job = methods.job("student", name, **resources)
    parameters = {"config": config, "seed": 3}
    return job.model_copy(
        update={"parameters": parameters, "digests": {"split": "a" * 64, "teacher": "b" * 64}, "caches": caches}
    )


def trained(methods, name, config, **options):
    job = job_of(methods, name, config, **options)
    outcome = train_rank(job, Comm.single())
    return digests(job), outcome.facts.get("teacher_cache", {}).get("teacher")


def entries(folder):
    return sorted(folder.glob("teachers/*/*.safetensors"))


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_training_has_the_same_bits_without_a_cache_and_with_an_empty_and_a_full_one(name, methods, tmp_path):
    config = CONFIGS[name]
    plain, told = trained(methods, f"{name}-plain", config)
    assert told is None, "off by default"
    filling, first = trained(methods, f"{name}-filling", config, caches=tmp_path)
    filled, second = trained(methods, f"{name}-filled", config, caches=tmp_path)
    assert plain == filling == filled
    asked = 2 * STEPS if name == "sam" else STEPS
    assert (first["asked"], second["hits"], second["asked"]) == (asked, asked, asked)
    assert first["hits"] == asked - STEPS, "SAM's second pass sees the images of the first"
    assert first["damaged"] == second["damaged"] == [] and len(entries(tmp_path)) == STEPS


def test_another_objective_on_the_same_stream_asks_no_teacher(methods, tmp_path):
    trained(methods, "first", CONFIGS["kd"], caches=tmp_path)
    other = {**CONFIGS["kd"], "objective": {"kind": "nkd"}}
    plain, _ = trained(methods, "other-plain", other)
    found, told = trained(methods, "other", other, caches=tmp_path)
    assert found == plain and told["hits"] == told["asked"] == STEPS


@pytest.mark.parametrize(
    "changes",
    [{"micro_batch_size": 4}, {"augment": {}}, {"mixup": None}, {"objective": {"kind": "kd", "teacher_size": 8}}],
)
def test_another_stream_finds_nothing(changes, methods, tmp_path):
    trained(methods, f"a-{sorted(changes)[0]}", CONFIGS["kd"], caches=tmp_path)
    _, told = trained(methods, f"b-{sorted(changes)[0]}", {**CONFIGS["kd"], **changes}, caches=tmp_path)
    assert told["hits"] == 0 and told["damaged"] == []


@pytest.mark.parametrize("damage", ["torn", "empty", "altered", "no seal", "about other images"])
def test_a_damaged_entry_is_a_named_miss_and_is_written_anew(damage, methods, tmp_path):
    label = damage.replace(" ", "-")
    whole, _ = trained(methods, f"{label}-a", CONFIGS["kd"], caches=tmp_path)
    victim, other = entries(tmp_path)[:2]
    data = victim.read_bytes()
    victim.write_bytes(
        {
            "torn": data[: len(data) // 2],
            "empty": b"",
            "altered": data[:-1] + bytes([data[-1] ^ 1]),
            "no seal": data.partition(b"\n")[2],
            "about other images": other.read_bytes(),
        }[damage]
    )
    found, told = trained(methods, f"{label}-b", CONFIGS["kd"], caches=tmp_path)
    assert found == whole and told == {"hits": STEPS - 1, "asked": STEPS, "damaged": [victim.name]}
    assert victim.read_bytes() == data


def test_it_takes_no_more_room_than_it_is_given_and_old_streams_go_first(methods, tmp_path):
    trained(methods, "room-a", CONFIGS["kd"], caches=tmp_path)
    (old,) = (tmp_path / "teachers").iterdir()
    size = sum(file.stat().st_size for file in entries(tmp_path))
    limit = size + size // 4
    whole, _ = trained(methods, "room-plain", {**CONFIGS["kd"], "augment": {}})
    found, told = trained(methods, "room-b", {**CONFIGS["kd"], "augment": {}}, caches=tmp_path, gib=limit / 2**30)
    assert found == whole and told["asked"] == STEPS
    assert not old.exists(), "it took more than half of the limit"
    found, _ = trained(methods, "room-c", {**CONFIGS["kd"], "augment": {}}, caches=tmp_path, gib=size / 4 / 2**30)
    assert found == whole
    small = tmp_path / "small"
    found, told = trained(methods, "room-d", {**CONFIGS["kd"], "augment": {}}, caches=small, gib=size / 4 / 2**30)
    assert found == whole and 0 < sum(file.stat().st_size for file in entries(small)) <= size / 4


def test_a_training_that_was_stopped_goes_on_with_the_cache_to_the_same_bits(methods, tmp_path):
    whole, _ = trained(methods, "stop-whole", CONFIGS["deit_lt"])
    stop = tmp_path / "stop"
    stop.touch()
    job = job_of(methods, "stop-cut", CONFIGS["deit_lt"], caches=tmp_path)
    with pytest.raises(Interrupted):
        train_rank(job.model_copy(update={"stop": stop}), Comm.single())
    train_rank(job, Comm.single())
    assert digests(job) == whole


def test_two_workers_fill_and_read_one_cache_to_the_bits_of_one_without(methods, tmp_path):
    whole, _ = trained(methods, "alone", STUDENT)
    jobs = [job_of(methods, name, STUDENT, caches=tmp_path) for name in ("pair-a", "pair-b")]
    for job in jobs:
        assert Ranks("student", job, world=2).wait() == [0, 0]
    assert digests(jobs[0]) == digests(jobs[1]) == whole
    assert len(entries(tmp_path)) == STEPS
    found, told = trained(methods, "afterwards", STUDENT, caches=tmp_path)
    assert found == whole and told["hits"] == told["asked"] == STEPS


def test_an_answer_that_is_kept_is_the_answer(tmp_path):
    cache = TeacherCache(tmp_path, {"teacher": "t"}, limit=10_000)
    images, answer = torch.rand(2, 3, 4, 4), torch.randn(2, 5).to(torch.bfloat16)
    place = torch.tensor([0, 1, 2, 0])
    assert cache.logits(images, place, view={}, ask=lambda: answer) is answer
    assert torch.equal(cache.logits(images, place, view={}, ask=pytest.fail), answer)
    (file,) = tmp_path.glob("*/*.safetensors")
    seal, _, body = file.read_bytes().partition(b"\n")
    assert sorted(json.loads(seal)) == ["images", "logits"] and torch.equal(load(body)["logits"], answer)
