"""A run that is killed or stopped in the middle of the student's training, and run again at once."""

import json
import signal
import sqlite3
from contextlib import closing

import psutil
import pytest
from project import REPOSITORY, TINY, digests, kill_group, statuses

COMMAND = ("run", "tiny", "--file", str(TINY), "--json")
CHECKPOINT_STEPS = 2  # as tiny.yaml says
DONE = ("ingest", "validate", "split", "teacher")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_the_student_goes_on_where_it_was_and_every_exact_stage_has_the_same_bytes(road, tmp_path, number):
    project = road.begun.copy(tmp_path)
    first = project.start(*COMMAND)
    project.wait_for(first, "student", epoch=1, step=4)
    kill_group(first, number)
    assert first.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    (killed,) = interrupted(project)
    assert (killed["ended"], killed["stage"]) == ("stopped" if number == signal.SIGTERM else "killed", "student")
    assert (killed["pipeline"], killed["options"]) == ("tiny", ["--file", str(TINY)])
    second = project.run() if number == signal.SIGKILL else resumed(project, killed["run"])
    assert {statuses(second)[name] for name in DONE} == {"hit"}
    student = next(stage for stage in second["stages"] if stage["name"] == "student")
    assert student["resumed_from"]["epoch"] * 10 + student["resumed_from"]["step"] > 0
    assert student["work_lost"]["steps"] <= (0 if number == signal.SIGTERM else CHECKPOINT_STEPS)
    assert digests(second) == digests(road.document)
    assert project.vitops("verify").returncode == 0
    assert interrupted(project) == []
    assert flow_states(killed["run"]) == {"FAILED" if number == signal.SIGTERM else "CRASHED"}


def interrupted(project):
    """What ``vitops resume`` lists."""
    return json.loads(project.vitops("resume", "--json").stdout)["runs"]


def resumed(project, run):
    done = project.vitops("resume", run, "--json")
    assert done.returncode == 0, f"{done.stderr}\n{project.log()}"
    return json.loads(done.stdout)


def flow_states(run):
    """States of Prefect's flow runs of one run of ours, as its database has them."""
    with closing(sqlite3.connect(f"file:{REPOSITORY / '.prefect/prefect.db'}?mode=ro", uri=True)) as database:
        found = database.execute("SELECT state_type FROM flow_run WHERE parameters LIKE ?", (f"%{run}%",))
        return {state for (state,) in found}


def test_the_death_of_prefects_server_costs_the_run_nothing(road, tmp_path):
    project = road.begun.copy(tmp_path)
    run = project.start(*COMMAND)
    project.wait_for(run, "student", epoch=0, step=2)
    children = psutil.Process(run.pid).children(recursive=True)
    (server,) = [child for child in children if "prefect.server.api.server:create_app" in child.cmdline()]
    server.kill()
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, f"{err}\n{project.log()}"
    assert digests(json.loads(out)) == digests(road.document)


def test_a_stage_that_fails_is_named_and_what_was_done_before_it_stays(road, tmp_path):
    project = road.project.copy(tmp_path)
    impossible = ("--set", "export.tolerance=1e-30")
    failed = project.vitops(*COMMAND, *impossible)
    assert failed.returncode == 1
    assert "export" in failed.stderr
    assert "Traceback" not in failed.stderr
    document = json.loads(failed.stdout)
    assert statuses(document)["prune"] == "hit"
    assert statuses(document)["export"] == "failed"
    assert document["package"] is None
    assert statuses(project.run())["export"] == "hit"
