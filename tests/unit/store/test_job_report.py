import errno
import json

import pytest

from vitops.errors import VitopsError
from vitops.store import durable
from vitops.store.job import Job


def job_in(root):
    return Job(
        stage="student",
        key="0" * 64,
        parameters={},
        inputs={},
        out=root / "out",
        checkpoints=root / "checkpoints",
        progress=root / "progress.json",
    )


def test_a_report_replaces_the_one_before(tmp_path):
    job = job_in(tmp_path)
    job.report(epoch=0)
    job.report(epoch=1, step=2)
    found = json.loads(job.progress.read_text())
    assert (found["stage"], found["epoch"], found["step"]) == ("student", 1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_a_full_disk_is_named_and_leaves_the_last_report(tmp_path, monkeypatch):
    job = job_in(tmp_path)
    job.report(epoch=0)

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "_write", full)
    with pytest.raises(VitopsError, match=r"progress\.json: no space is left"):
        job.report(epoch=1)
    assert json.loads(job.progress.read_text())["epoch"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]
