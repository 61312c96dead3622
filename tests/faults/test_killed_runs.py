"""A run that is killed or stopped in the middle of the student's training, and run again at once."""

import json
import signal

import pytest
from project import TINY, digests, kill_group, statuses

COMMAND = ("run", "tiny", "--file", str(TINY), "--json")
DONE = ("ingest", "validate", "split", "teacher")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_the_student_goes_on_where_it_was_and_every_exact_stage_has_the_same_bytes(road, tmp_path, number):
    project = road.begun.copy(tmp_path)
    first = project.start(*COMMAND)
    project.wait_for(first, "student", epoch=1, step=4)
    kill_group(first, number)
    assert first.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    second = project.run()
    assert {statuses(second)[name] for name in DONE} == {"hit"}
    student = next(stage for stage in second["stages"] if stage["name"] == "student")
    assert student["resumed_from"]["epoch"] * 10 + student["resumed_from"]["step"] > 0
    assert digests(second) == digests(road.document)
    assert project.vitops("verify").returncode == 0


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
