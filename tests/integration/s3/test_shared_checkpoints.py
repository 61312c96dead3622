"""Checkpoints on an S3 server: another machine goes on, no step waits, nothing incomplete is read."""

import itertools
import subprocess
import sys
import threading
import time

import pytest
import torch
from s3_faults import FAULTS, slow
from synthetic_split import write_split
from toy_training import train

from vitops.errors import Interrupted
from vitops.plan.code.digest import code_digest
from vitops.store.job import Position
from vitops.store.s3 import S3Objects
from vitops.training import shared_checkpoints
from vitops.training.checkpoint import Checkpoints, Saved
from vitops.training.shared_checkpoints import SharedCheckpoints

MACHINE = f"""
import sys, time
from pathlib import Path
sys.path[:0] = {sys.path!r}
import torch
from toy_training import train
from vitops.training.running import Training

def slow(self, *place, real=Training.step):
    time.sleep(0.3)
    real(self, *place)

Training.step = slow
torch.set_num_threads(1)
train(Path(sys.argv[1]), Path(sys.argv[2]), shared=sys.argv[3], checkpoint_steps=1)
"""


@pytest.fixture
def objects(s3):
    return s3.objects("checkpoints/key")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("toy"))


def saved(step):
    return Saved({"x": torch.full((100,), float(step))}, {"step": step})


def checkpoints(folder, objects):
    return Checkpoints(folder, SharedCheckpoints(objects))


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(Position(epoch=0, step=step), saved(step))


def complete(objects):
    """Steps of the checkpoints that another machine would take, newest first."""
    return [int(name[9:18]) for name in SharedCheckpoints(objects).names()]


def uploaded(checkpoints, objects, *steps):
    """Save them one by one, each uploaded before the next."""
    for step in steps:
        save(checkpoints, step)
        until = time.monotonic() + 30
        while complete(objects)[:1] != [step]:
            assert time.monotonic() < until
            time.sleep(0.02)


def refused(checkpoints, match):
    """Saving goes on until an upload has found that the attempt is superseded."""
    with pytest.raises(Interrupted, match=match):
        for step in range(3, 200):
            save(checkpoints, step)
            time.sleep(0.05)


def newest(folder, objects):
    found, damaged = checkpoints(folder, objects).newest()
    return (found and found.record["step"]), damaged


def test_a_machine_that_dies_is_followed_by_another_to_the_same_bits(objects, split, tmp_path):
    expected, _, _ = train(split, tmp_path / "undisturbed")
    first = subprocess.Popen([sys.executable, "-c", MACHINE, str(split), str(tmp_path / "a"), objects.url])
    while 2 not in complete(objects):
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.wait()
    digest, result, _ = train(split, tmp_path / "b", shared=objects.url)
    assert digest == expected
    assert 3 * result.resumed_from.epoch + result.resumed_from.step >= 2
    assert complete(objects)[0] == 3, "the second one's last checkpoint is there before fit returns"


def test_saving_never_waits_for_an_upload_and_a_slow_one_skips_what_was_overtaken(s3, objects, tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    class Slow(S3Objects):
        def upload(self, name, source, *, sha256):
            begun.set()
            go_on.wait(300)
            super().upload(name, source, sha256=sha256)

    slow = checkpoints(tmp_path, s3.objects("checkpoints/key", kind=Slow))
    save(slow, 1)
    assert begun.wait(60)
    save(slow, 2, 3, 4, 5)
    assert complete(objects) == []
    assert sorted(int(path.name[9:18]) for path in tmp_path.glob("e*")) == [1, 4, 5], "1 is being read"
    go_on.set()
    slow.close()
    assert complete(objects) == [5, 1]


def test_the_last_two_are_kept_and_what_came_to_no_end_is_removed(objects, tmp_path):
    objects.write("e000000-s000000000-a000001/state.json", b"torn")
    running = checkpoints(tmp_path, objects)
    uploaded(running, objects, 1, 2, 3)
    running.close()
    assert complete(objects) == [3, 2]
    assert {name.partition("/")[0][:18] for name in objects.sizes("e")} == {"e000000-s000000002", "e000000-s000000003"}


def test_another_home_takes_the_newest_and_counts_its_attempts_on(objects, tmp_path):
    uploaded(checkpoints(tmp_path / "a", objects), objects, 1, 2)
    other = checkpoints(tmp_path / "b", objects)
    assert other.newest()[0].record == {"step": 2}
    save(other, 3)
    other.close()
    assert sorted(path.name for path in (tmp_path / "b").glob("e*"))[-1] == "e000000-s000000003-a000002"


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_happens_to_requests_another_home_goes_on_from_the_newest(fault, s3, objects, tmp_path):
    for method, path in (("PUT", "attempts/"), ("GET", "list-type"), ("DELETE", "manifest.json")):
        s3.proxy.strike(method, path, FAULTS[fault], times=1)
    for method, path in itertools.product(("PUT", "GET"), ("state.safetensors", "manifest.json")):
        s3.proxy.strike(method, path, FAULTS[fault], times=1)
    running = checkpoints(tmp_path / "a", objects)
    uploaded(running, objects, 1, 2, 3)
    running.close()
    assert newest(tmp_path / "b", objects) == (3, [])
    assert complete(objects) == [3, 2]
    assert [rule for rule in s3.proxy.rules if rule.times] == []


def test_what_is_newer_here_is_taken_from_here(objects, tmp_path):
    running = checkpoints(tmp_path / "a", objects)
    uploaded(running, objects, 1)
    save(running, 2)
    running.close()
    objects.remove("e000000-s000000002-a000001/manifest.json")
    assert newest(tmp_path / "a", objects) == (2, [])
    assert newest(tmp_path / "b", objects) == (1, [])


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "manifest.json"])
def test_a_damaged_object_is_passed_over_and_removed(file, objects, tmp_path):
    uploaded(checkpoints(tmp_path / "a", objects), objects, 1, 2)
    objects.write(f"e000000-s000000002-a000001/{file}", b"altered")
    step, damaged = newest(tmp_path / "b", objects)
    assert (step, len(damaged)) == (1, 1)
    assert "e000000-s000000002-a000001 is damaged" in damaged[0]
    assert complete(objects) == [1]


def test_a_manifest_that_names_other_files_is_not_followed(objects, tmp_path):
    """A name with dots in it would lead out of the folder."""
    uploaded(checkpoints(tmp_path / "a", objects), objects, 1)
    name = "e000000-s000000001-a000001/manifest.json"
    objects.write(name, objects.read(name).replace(b"state.json", b"../../evil"))
    step, damaged = newest(tmp_path / "b", objects)
    assert (step, len(damaged)) == (None, 1)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_damaged_checkpoint_here_is_replaced_by_the_shared_one(objects, tmp_path):
    running = checkpoints(tmp_path, objects)
    uploaded(running, objects, 1, 2)
    running.close()
    (tmp_path / "e000000-s000000002-a000001/state.safetensors").write_bytes(b"torn")
    step, damaged = newest(tmp_path, objects)
    assert (step, len(damaged)) == (2, 1)


def test_an_attempt_that_another_home_superseded_uploads_and_removes_nothing(objects, tmp_path):
    """On its own disk nothing tells it; the bucket does."""
    stale = checkpoints(tmp_path / "a", objects)
    uploaded(stale, objects, 1)
    current = checkpoints(tmp_path / "b", objects)
    uploaded(current, objects, 2)
    refused(stale, r"taken over the training at s3://.*attempt 2; this is 1")
    current.close()
    assert complete(objects) == [2, 1]


def test_an_attempt_whose_training_is_over_uploads_nothing(objects, tmp_path):
    stale = checkpoints(tmp_path, objects)
    objects.remove("attempts/000001")
    refused(stale, "finished or removed the training at s3://")
    assert complete(objects) == []


def test_a_server_that_is_away_costs_a_warning_and_the_next_checkpoint_is_uploaded(s3, objects, tmp_path, caplog):
    running = checkpoints(tmp_path, objects)
    with s3.proxy.away():
        save(running, 1)
        until = time.monotonic() + 30
        while "was not uploaded" not in caplog.text and time.monotonic() < until:
            time.sleep(0.05)
    uploaded(running, objects, 2)
    running.close()
    assert complete(objects) == [2]
    assert "e000000-s000000001-a000001 was not uploaded" in caplog.text


def test_the_end_waits_for_a_silent_server_for_seconds_only(s3, objects, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(shared_checkpoints, "LAST_SECONDS", 0.5)
    running = checkpoints(tmp_path, objects)
    s3.proxy.strike("PUT", "/state.", slow(600.0))
    save(running, 1)
    begun = time.monotonic()
    running.close()
    assert time.monotonic() - begun < 10
    assert "the last checkpoint was not uploaded within 0.5 s: it is on this machine's disk" in caplog.text
    assert newest(tmp_path, objects) == (1, [])


def test_which_server_holds_the_checkpoints_is_in_no_stage_key():
    reached = code_digest(("vitops.training.stage:train",)).definitions
    assert any(name.startswith("vitops.training.shared_checkpoints.") for name in reached)
    assert not [name for name in reached if name.startswith(("vitops.store.s3", "vitops.store.shared"))]
