"""Which runs of a store were interrupted, and what each was asked for."""

import subprocess
import sys

import pytest

from vitops.errors import UsageError
from vitops.plan.record import write_atomically
from vitops.plan.request import RunRequest
from vitops.plan.runs import SUPERVISOR, begin, find, illegible, interrupted, settle, supervisor_gone
from vitops.store.process import Process


@pytest.fixture
def begun(tmp_path):
    """Make a run: its request, how it ended (None: by SIGKILL of everything), and whether its supervisor lives."""

    def make(name, *, outcome=None, stop=False, lives=False, **asked):
        folder = tmp_path / name
        folder.mkdir()
        begin(folder, RunRequest(pipeline="tiny", run_id=name, home=tmp_path, **asked))
        if not lives:
            write_atomically(folder / SUPERVISOR, ended_process().model_dump())
        if outcome is not None:
            write_atomically(folder / "outcome.json", outcome)
        if stop:
            (folder / "stop").touch()
        stages = [{"name": "ingest", "status": "hit"}, {"name": "teacher", "status": "running"}]
        write_atomically(folder / "run.json", {"stages": stages})
        return folder

    return make


def ended_process():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert not process.gone()
    child.communicate(b"\n")
    return process


@pytest.mark.parametrize(
    ("ending", "ended"),
    [
        ({}, "killed"),
        ({"stop": True}, "stopped"),
        ({"outcome": {"exit_code": 75, "error": "stopped"}}, "stopped"),
        ({"outcome": {"exit_code": 1, "error": "signal 9", "died": True}}, "killed"),
    ],
)
def test_a_run_that_can_go_on_is_listed_with_its_place(begun, tmp_path, ending, ended):
    begun("a", overrides=("teacher.epochs=2",), **ending)
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
def test_a_run_that_goes_on_or_has_ended_is_not_listed_and_not_found(begun, tmp_path, ending):
    begun("a", **ending)
    assert interrupted(tmp_path) == []
    with pytest.raises(UsageError, match=r"run a is (running|done|failed), not interrupted"):
        find(tmp_path, "a")


def test_only_the_latest_run_of_a_request_counts(begun, tmp_path):
    begun("a")
    begun("b", workers=2)
    begun("c", outcome={"exit_code": 0, "error": None})
    assert [run.name for run in interrupted(tmp_path)] == ["b"]
    settle(tmp_path, "b")
    assert interrupted(tmp_path) == []


def test_a_failed_attempt_to_go_on_leaves_what_was_interrupted(begun, tmp_path):
    begun("a")
    begun("b", outcome={"exit_code": 1, "error": "another arithmetic"})
    assert [run.name for run in interrupted(tmp_path)] == ["a"]
    begun("c", outcome={"exit_code": 0, "error": None}, allow_environment_change=True)
    assert interrupted(tmp_path) == []


def test_an_unknown_run_is_answered_with_the_nearest(begun, tmp_path):
    begun("20260101T000000-17")
    with pytest.raises(UsageError, match="did you mean '20260101T000000-17'"):
        find(tmp_path, "20260101T000000-71")


def test_a_supervisor_on_another_machine_counts_as_alive(begun, tmp_path):
    folder = begun("a")
    assert supervisor_gone(folder)
    elsewhere = Process.model_validate_json((folder / SUPERVISOR).read_bytes()).model_copy(update={"host": "elsewhere"})
    write_atomically(folder / SUPERVISOR, elsewhere.model_dump())
    assert not supervisor_gone(folder)


TORN = {"empty": b"", "half": b'{"host": "here", "pi', "another shape": b"[1, 2]", "no text": b"\xff\xfe\x00"}


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
def test_a_run_whose_supervisor_cannot_be_read_is_not_running_for_ever(begun, tmp_path, torn):
    folder = begun("a")
    (folder / SUPERVISOR).write_bytes(torn)
    assert supervisor_gone(folder)
    (run,) = interrupted(tmp_path)
    assert (run.ended, run.stage) == ("killed", "teacher")
    (folder / "stop").touch()
    assert find(tmp_path, "a").ended == "stopped"


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
@pytest.mark.parametrize(("name", "stage"), [("outcome.json", "teacher"), ("run.json", None)])
def test_a_run_with_another_record_that_cannot_be_read_is_listed_with_what_is_known(begun, tmp_path, name, stage, torn):
    (begun("a") / name).write_bytes(torn)
    (run,) = interrupted(tmp_path)
    assert (run.name, run.ended, run.stage) == ("a", "killed", stage)


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
def test_a_request_that_cannot_be_read_is_named_and_hides_no_other(begun, tmp_path, torn):
    request = begun("a") / "request.json"
    request.write_bytes(torn)
    begun("b")
    assert [run.name for run in interrupted(tmp_path)] == ["b"]
    assert illegible(tmp_path) == [request]
    with pytest.raises(UsageError, match=r"run a: .*request\.json cannot be read; type the run's command once more"):
        find(tmp_path, "a")


def test_a_reused_pid_is_another_process():
    me = Process.own()
    assert not me.gone()
    boot, _, ticks = me.started.partition(":")
    assert me.model_copy(update={"started": f"{boot}:{int(ticks) - 1}"}).gone()
    assert me.model_copy(update={"started": f"another start:{ticks}"}).gone()
