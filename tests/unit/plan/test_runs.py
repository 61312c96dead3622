"""Which runs of a store were interrupted, and what each was asked for."""

import subprocess
import sys
from contextlib import ExitStack

import pytest

from vitops.errors import UsageError
from vitops.plan.record import write_atomically
from vitops.plan.request import RunRequest
from vitops.plan.runs import LOCK, begun, find, illegible, interrupted, settle, supervised, supervisor_gone


@pytest.fixture
def make(tmp_path):
    """Make a run: its request, how it ended (None: by SIGKILL of everything), and whether its supervisor lives."""
    with ExitStack() as alive:

        def make(name, *, outcome=None, stop=False, lives=False, **asked):
            folder = tmp_path / name
            folder.mkdir()
            with ExitStack() as dead:
                request = RunRequest(pipeline="tiny", run_id=name, home=tmp_path, **asked)
                (alive if lives else dead).enter_context(begun(folder, request))
            if outcome is not None:
                write_atomically(folder / "outcome.json", outcome)
            if stop:
                (folder / "stop").touch()
            stages = [{"name": "ingest", "status": "hit"}, {"name": "teacher", "status": "running"}]
            write_atomically(folder / "run.json", {"stages": stages})
            return folder

        yield make


@pytest.mark.parametrize(
    ("ending", "ended"),
    [
        ({}, "killed"),
        ({"stop": True}, "stopped"),
        ({"outcome": {"exit_code": 75, "error": "stopped"}}, "stopped"),
        ({"outcome": {"exit_code": 1, "error": "signal 9", "died": True}}, "killed"),
    ],
)
def test_a_run_that_can_go_on_is_listed_with_its_place(make, tmp_path, ending, ended):
    make("a", overrides=("teacher.epochs=2",), **ending)
    (run,) = interrupted(tmp_path)
    assert (run.name, run.ended, run.stage) == ("a", ended, "teacher")
    assert run.asked == RunRequest(pipeline="tiny", overrides=("teacher.epochs=2",))


@pytest.mark.parametrize(
    "ending",
    [
        {"lives": True},
        {"lives": True, "stop": True},
        {"outcome": {"exit_code": 0, "error": None}},
        {"outcome": {"exit_code": 1, "error": "a gate failed"}},
    ],
)
def test_a_run_that_goes_on_or_has_ended_is_not_listed_and_not_found(make, tmp_path, ending):
    make("a", **ending)
    assert interrupted(tmp_path) == []
    with pytest.raises(UsageError, match=r"run a is (running|done|failed), not interrupted"):
        find(tmp_path, "a")


def test_only_the_latest_run_of_a_request_counts(make, tmp_path):
    make("a")
    make("b", workers=2)
    make("c", outcome={"exit_code": 0, "error": None})
    assert [run.name for run in interrupted(tmp_path)] == ["b"]
    settle(tmp_path, "b")
    assert interrupted(tmp_path) == []


def test_a_failed_attempt_to_go_on_leaves_what_was_interrupted(make, tmp_path):
    make("a")
    make("b", outcome={"exit_code": 1, "error": "another arithmetic"})
    assert [run.name for run in interrupted(tmp_path)] == ["a"]
    make("c", outcome={"exit_code": 0, "error": None}, allow_environment_change=True)
    assert interrupted(tmp_path) == []


def test_an_unknown_run_is_answered_with_the_nearest(make, tmp_path):
    make("20260101T000000-17")
    with pytest.raises(UsageError, match="did you mean '20260101T000000-17'"):
        find(tmp_path, "20260101T000000-71")


BEGIN = """
import sys
from pathlib import Path
from vitops.plan.request import RunRequest
from vitops.plan.runs import begun
with begun(Path(sys.argv[1]), RunRequest(pipeline="tiny")):
    print("begun", flush=True)
    sys.stdin.readline()
"""


def test_a_death_frees_the_run_whatever_became_of_the_machine_and_its_name(tmp_path):
    command = [sys.executable, "-c", BEGIN, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"begun\n"
        assert supervised(tmp_path) and not supervisor_gone(tmp_path)
        child.kill()
    assert not supervised(tmp_path) and supervisor_gone(tmp_path)


def test_what_never_began_has_no_supervisor_to_lose(tmp_path):
    assert not supervised(tmp_path) and not supervisor_gone(tmp_path)


def test_asking_writes_nothing_so_runs_on_a_read_only_disk_are_listed(make):
    lock = make("a") / LOCK
    lock.chmod(0o444)
    made = lock.stat().st_mtime_ns
    assert not supervised(lock.parent)
    assert lock.stat().st_mtime_ns == made


TORN = {"empty": b"", "half": b'{"host": "here", "pi', "another shape": b"[1, 2]", "no text": b"\xff\xfe\x00"}


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
@pytest.mark.parametrize(("name", "stage"), [("outcome.json", "teacher"), ("run.json", None)])
def test_a_run_with_another_record_that_cannot_be_read_is_listed_with_what_is_known(make, tmp_path, name, stage, torn):
    (make("a") / name).write_bytes(torn)
    (run,) = interrupted(tmp_path)
    assert (run.name, run.ended, run.stage) == ("a", "killed", stage)


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
def test_a_request_that_cannot_be_read_is_named_and_hides_no_other(make, tmp_path, torn):
    request = make("a") / "request.json"
    request.write_bytes(torn)
    make("b")
    assert [run.name for run in interrupted(tmp_path)] == ["b"]
    assert illegible(tmp_path) == [request]
    with pytest.raises(UsageError, match=r"run a: .*request\.json cannot be read; type the run's command once more"):
        find(tmp_path, "a")
