"""The record of a run: whole for every reader, and never in the way of the error that ends a run."""

import errno
import json
from types import SimpleNamespace

import pytest

from vitops.errors import Interrupted, VitopsError
from vitops.plan.execute import recorded
from vitops.plan.record import RunRecord, read_record
from vitops.plan.stages import Stage
from vitops.store import durable

STAGE = Stage("student", "train", {}, ("vitops.errors",), (), {})


@pytest.fixture
def place(tmp_path):
    return SimpleNamespace(record=RunRecord(tmp_path / "run", pipeline="p", stages=[STAGE], configuration={}))


def fill_the_disk(monkeypatch):
    def refuse(_descriptor, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "_write", refuse)


@pytest.mark.parametrize(("error", "status"), [(VitopsError("x"), "failed"), (Interrupted("x"), "interrupted")])
def test_how_a_stage_ended_is_recorded(place, error, status):
    with pytest.raises(type(error)), recorded(place, STAGE):
        raise error
    (stage,) = read_record(place.record.folder / "run.json")["stages"]
    assert stage["status"] == status


@pytest.mark.parametrize("error", [VitopsError("no room for weights"), Interrupted("saved")])
def test_a_full_disk_does_not_hide_the_error_that_ended_the_stage(place, monkeypatch, error):
    with pytest.raises(type(error), match=str(error)), recorded(place, STAGE):
        fill_the_disk(monkeypatch)
        raise error


def test_a_record_that_the_disk_does_not_take_is_a_paragraph_and_leaves_the_old_one(place, monkeypatch):
    file = place.record.folder / "run.json"
    before = file.read_bytes()
    fill_the_disk(monkeypatch)
    with pytest.raises(VitopsError, match=r"run\.json: no space is left on its file system"):
        place.record.update("student", status="running")
    assert file.read_bytes() == before and json.loads(before)
    assert list(place.record.folder.iterdir()) == [file]
