"""The teachers of a training stage: those that its objective names, by role, each accepted on clean images."""

import json

import pytest
from exact_methods import METHODS, PLAIN, Methods

from vitops.errors import UsageError
from vitops.training import Comm
from vitops.training.stage import train_rank

TWO = {
    **PLAIN,
    "objective": {"kind": "nkd", "teachers": {"teacher": 1, "second": 3}},
    "mixup": {"label_smoothing": 0.0},
    "epochs": 1,
    "schedule": {"kind": "cosine"},
}


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    return Methods(tmp_path_factory.mktemp("teachers"))


def train(methods, name, config, **inputs):
    job = methods.job("plain", name)
    job = job.model_copy(update={"parameters": {"config": config, "seed": 3}, "inputs": {**job.inputs, **inputs}})
    train_rank(job, Comm.single())
    return json.loads((job.out / "history.json").read_text())


def test_several_teachers_come_by_role_and_a_missing_one_is_named(methods):
    guide = methods.inputs["student"]["teacher"]
    [epoch] = train(methods, "two", TWO, teacher=guide, second=guide)
    one = TWO | {"objective": {"kind": "nkd"}}
    [alone] = train(methods, "one", one, teacher=guide)
    assert epoch["target"] == pytest.approx(alone["target"], rel=1e-5), "the same teacher twice is that teacher"
    with pytest.raises(UsageError, match="needs a model in the role 'second', found"):
        train(methods, "missing", TWO, teacher=guide)


def test_a_teacher_that_the_objective_does_not_read_is_not_even_opened(methods, tmp_path):
    config = METHODS["plain"] | {"epochs": 1, "schedule": {"kind": "cosine"}}
    assert len(train(methods, "unread", config, teacher=tmp_path / "nowhere")) == 1
