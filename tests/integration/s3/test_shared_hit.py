"""A hit in one home while another home makes the same artifact again: the training that goes on keeps its own."""

import dataclasses

import pytest
import torch
from test_racing_measurements import REPORT, place

from vitops.plan.execute import execute
from vitops.reporting import stage as reporting
from vitops.store.job import Outcome, Position
from vitops.training.checkpoint import Checkpoints, Saved
from vitops.training.shared_checkpoints import SharedCheckpoints, opened

STAGE = dataclasses.replace(REPORT, exactness="exact")
LEFT = "checkpoints/{key}/e000000-s000000001-a000001/state.json"


@pytest.fixture
def homes(s3, tmp_path):
    return [place(tmp_path / name, s3.objects()) for name in ("one", "two")]


def checkpoints_of(s3) -> list[str]:
    return [name for name in s3.names() if name.startswith("checkpoints/")]


def train(job, meanwhile) -> None:
    """Five steps with a checkpoint each; ``meanwhile`` is called after the first."""
    points = Checkpoints(job.checkpoints, SharedCheckpoints(opened(job.shared_checkpoints)))
    for step in range(1, 6):
        points.save(Position(epoch=0, step=step), Saved({"x": torch.ones(9)}, {}))
        points.close()
        if step == 1:
            meanwhile()


def test_a_hit_elsewhere_leaves_a_running_training_alone(s3, homes, monkeypatch):
    one, two = homes
    before_and_after, hits = [], []

    def meanwhile():
        before_and_after.append(checkpoints_of(s3))
        hits.append(execute(two, STAGE, {}))
        before_and_after.append(checkpoints_of(s3))

    def work(job):
        if altered:
            train(job, meanwhile)
        (job.out / "f").write_bytes(b"abcdef")
        return Outcome()

    monkeypatch.setattr(reporting, "report", work)
    altered = ""
    execute(one, STAGE, {})
    altered = next(name for name in s3.names() if name.startswith("objects/blobs/"))
    s3.put(altered, b"abcdeX")  # of the same size: home two, which has read no byte of it, has a hit
    one.store.distrust(altered.rpartition("/")[2])
    assert not execute(one, STAGE, {}).hit
    assert [done.hit for done in hits] == [True]
    before, after = before_and_after
    assert before == after
    assert any("/attempts/" in name for name in before) and any(name.endswith("manifest.json") for name in before)
    assert checkpoints_of(s3) == []  # whoever publishes clears them away


def test_a_hit_removes_what_a_kill_after_the_receipt_left_where_nobody_computes(s3, homes, monkeypatch):
    keys = []

    def work(job):
        keys.append(job.key)
        (job.out / "f").write_bytes(b"abcdef")
        return Outcome()

    monkeypatch.setattr(reporting, "report", work)
    one, two = homes
    execute(one, STAGE, {})
    s3.put(LEFT.format(key=keys[0]), b"{}")
    assert execute(two, STAGE, {}).hit
    assert checkpoints_of(s3) == []
