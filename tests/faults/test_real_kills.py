"""A restart of the real flow that crashes or hangs is a repair by hand, though the start after it comes to its end.

The command is a program that writes the records of a run with three stages. It marks each start that has come to a
stage that was not struck yet, and the start after the first of these misbehaves.
"""

import json
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest
import real_kills
from tally import SAME, STUCK

STAGES = ("teacher", "student", "prune")
COMMAND = f"""
import json, os, pathlib, sys, time
stages, here = {STAGES!r}, pathlib.Path.cwd()
due = here / "due"
if due.exists() and not (here / "misbehaved").exists():
    (here / "misbehaved").touch()
    match sys.argv[1]:
        case "crash": sys.exit("corrupt store")
        case "hang": time.sleep(600)
run = here / f".vitops/runs/{{time.time_ns()}}"
run.mkdir(parents=True)
for at, stage in enumerate(stages):
    status = lambda n: "hit" if n < at else "running" if n == at else "pending"
    names = [{{"name": s, "status": status(n)}} for n, s in enumerate(stages)]
    (run / "new").write_text(json.dumps({{"pid": os.getpid(), "stages": names}}))
    os.replace(run / "new", run / "run.json")
    if not (here / stage).exists():
        (here / stage).touch()
        due.touch()
        time.sleep(0 if sys.argv[1] == "quick" else 1)
print(json.dumps({{"stages": [{{"name": s, "digest": "d", "exactness": "exact"}} for s in stages]}}))
"""


def chained(folder, monkeypatch, *, kind):
    """The tally of a chain of such a command."""

    def started(*_):
        arguments = [sys.executable, "-c", COMMAND, kind]
        pipe = subprocess.PIPE
        return subprocess.Popen(arguments, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    project = SimpleNamespace(folder=folder, start=started, log=str)
    project.vitops = lambda *_: SimpleNamespace(returncode=0, stdout="")
    monkeypatch.setattr(real_kills, "Project", lambda *_, **__: project)
    monkeypatch.setattr(real_kills, "PATIENCE", 3)
    road = SimpleNamespace(seconds=dict.fromkeys(STAGES, 0.1), expected=dict.fromkeys(STAGES, "d"))
    return real_kills.chain(road, folder, draw=random.Random(0), stages=STAGES)


@pytest.mark.parametrize(
    ("kind", "sentence"), [("crash", "ended with 1: corrupt store"), ("hang", "has not come to student after 3 s")]
)
def test_a_restart_that_crashes_or_hangs_is_stuck(tmp_path, monkeypatch, kind, sentence):
    tally = chained(tmp_path / "chain", monkeypatch, kind=kind)
    assert dict(tally.kills) == {"teacher": 1, "prune": 1}
    assert dict(tally.verdicts) == {STUCK: 1, SAME: 1}
    assert sentence in json.dumps(tally.findings)


def test_a_stage_that_is_over_before_it_is_struck_is_no_kill_and_nothing_else(tmp_path, monkeypatch):
    tally = chained(tmp_path / "chain", monkeypatch, kind="quick")
    assert (tally.points, tally.kills.total(), dict(tally.verdicts)) == (1, 0, {SAME: 1})


def test_restarts_that_go_on_are_killed_in_every_stage(tmp_path, monkeypatch):
    tally = chained(tmp_path / "chain", monkeypatch, kind="well")
    assert (dict(tally.kills), dict(tally.verdicts)) == (dict.fromkeys(STAGES, 1), {SAME: 1})
