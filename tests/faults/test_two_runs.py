"""Two real processes want the same stage: one computes it, the other waits and takes the result, or goes on with it."""

import json
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

import pytest
from s3_faults import slow
from small_road import Road

from vitops.lineage.shared_ledger import open_ledger
from vitops.store.shared import open_store
from vitops.training.shared_checkpoints import SharedCheckpoints, opened

LEASE = 8.0
"""Seconds; of those whom nobody must give up it is longer."""
RUN = f"""
import json, sys, time
from pathlib import Path
sys.path[:0] = {sys.path!r}
from small_road import Road
from vitops.errors import VitopsError
from vitops.plan.execute import execute
from vitops.store import claims
from vitops.training.running import Training

pause, claims.LEASE = float(sys.argv[3]), float(sys.argv[4])

def slow(self, *place, real=Training.step):
    time.sleep(pause)
    real(self, *place)

Training.step = slow
road = Road(Path(sys.argv[1]))
(teacher,), place = road.open(Path(sys.argv[2]), until="teacher")
print(place.record.folder, flush=True)
sys.stdin.readline()
try:
    done = execute(place, teacher, {{"split": road.split}})
except VitopsError as error:
    print(json.dumps({{"error": type(error).__name__, "message": str(error)}}))
else:
    resumed = place.record.stages["teacher"]["resumed_from"]
    print(json.dumps({{"digest": done.ref.digest, "hit": done.hit, "resumed_from": resumed}}))
"""


class Run:
    """A process that brings the teacher in ``home`` up to date, each step ``pause`` seconds slower than it must be.

    It begins when it is told to ``go``, so that two can begin together.
    """

    def __init__(self, road, home, *, pause, lease=LEASE):
        arguments = [sys.executable, "-c", RUN, str(road.root), str(home), str(pause), str(lease)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @cached_property
    def folder(self):
        """Of the run; there when it is ready."""
        return Path(self.process.stdout.readline().strip())

    def go(self):
        assert self.folder.is_dir()
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self

    def status(self):
        """Of the teacher, as the run's record has it."""
        (stage,) = (
            one for one in json.loads((self.folder / "run.json").read_text())["stages"] if one["kind"] == "train"
        )
        return stage["status"]

    def comes_to(self, status):
        until(lambda: self.status() == status)

    def end(self):
        """What it came to."""
        out, _ = self.process.communicate(timeout=120)
        return json.loads(out)


def until(condition, *, seconds=90):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    return Road(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def undisturbed(road, tmp_path_factory):
    return Run(road, tmp_path_factory.mktemp("undisturbed"), pause=0).go().end()["digest"]


@pytest.fixture(params=["one home", "two homes on a bucket"])
def homes(request, tmp_path, monkeypatch):
    if request.param == "one home":
        return tmp_path / "home", tmp_path / "home"
    monkeypatch.setenv("VITOPS_STORE", request.getfixturevalue("s3").url)
    return tmp_path / "a", tmp_path / "b"


@pytest.fixture
def run(road):
    started = []

    def start(home, **options):
        started.append(Run(road, home, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def ledger(home):
    return open_ledger(home, open_store(home).shared)


def has_checkpoint(home):
    """Whether the other run would find one."""
    keys = [path.name for path in home.glob("checkpoints/*")]
    url = open_store(home).shared_checkpoints(keys[0]) if keys else None
    return bool(SharedCheckpoints(opened(url)).names() if url else list(home.glob("checkpoints/*/e*")))


def test_one_computes_and_the_other_waits_and_takes_the_result(homes, run, undisturbed):
    both = [run(home, pause=0.5) for home in homes]
    ready = [one.folder for one in both]
    assert ready[0] != ready[1]
    for one in both:
        one.go()
    until(lambda: {one.status() for one in both} == {"running", "waiting"})
    ends = [one.end() for one in both]
    assert sorted(end["hit"] for end in ends) == [False, True]
    assert {end["digest"] for end in ends} == {undisturbed}
    assert len(list(ledger(homes[0]).entries())) == 1


def test_a_waiter_takes_over_from_a_killed_run_where_that_was(homes, run, undisturbed):
    first, second = run(homes[0], pause=1.5), run(homes[1], pause=0.0)
    assert second.folder.is_dir()
    first.go()
    until(lambda: has_checkpoint(homes[0]))
    second.go().comes_to("waiting")
    first.process.kill()
    end = second.end()
    assert (end["digest"], end["hit"]) == (undisturbed, False)
    assert end["resumed_from"] is not None
    assert len(list(ledger(homes[1]).entries())) == 1
    store = open_store(homes[1])
    assert not list(homes[1].glob("checkpoints/*"))
    assert store.shared is None or not store.shared.sizes("checkpoints/")


def test_a_waiter_that_is_asked_to_stop_ends_at_once(homes, run):
    first, second = run(homes[0], pause=30.0), run(homes[1], pause=0.0)
    first.go().comes_to("running")
    until(lambda: list(homes[0].glob("checkpoints/*")))
    second.go().comes_to("waiting")
    (second.folder / "stop").touch()
    end = second.end()
    assert end["error"] == "Interrupted"
    assert "while another run computes stage teacher" in end["message"]
    assert first.status() == "running"


@pytest.mark.parametrize("homes", ["two homes on a bucket"], indirect=True)
def test_a_stopped_run_that_was_given_up_publishes_nothing_when_it_goes_on(homes, run, undisturbed):
    first, second = run(homes[0], pause=1.5), run(homes[1], pause=0.0)
    assert second.folder.is_dir()
    first.go()
    until(lambda: has_checkpoint(homes[0]))
    first.process.send_signal(signal.SIGSTOP)
    second = second.go().end()
    assert (second["digest"], second["hit"]) == (undisturbed, False)
    first.process.send_signal(signal.SIGCONT)
    end = first.end()
    assert end["error"] == "Interrupted"
    assert "this run publishes nothing of it" in end["message"]
    assert [receipt.digest for receipt in ledger(homes[1]).entries()] == [undisturbed]


@pytest.mark.parametrize("homes", ["two homes on a bucket"], indirect=True)
def test_a_run_that_is_asked_to_stop_waits_for_no_silent_bucket(homes, run, s3):
    """The server takes every request and never answers: what was saved on this disk is what counts.

    Steps are so slow that a busy machine comes to none of the last ones, after which there is nothing to stop.
    """
    stopped = run(homes[0], pause=4.0, lease=600.0).go()
    until(lambda: has_checkpoint(homes[0]))
    s3.proxy.forget()
    s3.proxy.strike("", "", slow(600.0))
    until(lambda: any("checkpoints" in path for _, path in s3.proxy.asked))
    asked = time.monotonic()
    (stopped.folder / "stop").touch()
    end = stopped.end()
    assert time.monotonic() - asked < 30
    assert (end["error"], "the work is saved" in end["message"]) == ("Interrupted", True)
    assert list(homes[0].glob("checkpoints/*/e*"))
