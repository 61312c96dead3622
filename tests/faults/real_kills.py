"""Kills of the real thing: ``vitops run`` with Prefect, DVC and Ray, at a random moment in every one of its stages.

A chain is one project: the command is started, and some time after a stage has begun either the command's process
group or the flow's is killed, as the seed says; the next start of the same command is the next victim. Then the
command runs to its end, and every exact digest must be that of an undisturbed run in another folder. A start that ends
with an error before it was struck, or hangs, is a repair by hand, and a point of its own.
"""

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress

from project import EXACT, TINY, Project, digests
from tally import DIVERGENT, SAME, STUCK, Tally

RAY = ("--set", "resources.launcher=ray", "--workers", "2")
COMMAND = ("run", "tiny", "--file", str(TINY), "--json", *RAY)
STAGES = (*EXACT, "report")
PATIENCE = 300
"""Seconds that a stage may take to begin."""


class RealRoad:
    """The undisturbed run in ``folder``: what each stage took, and the digests to compare with."""

    def __init__(self, folder):
        folder.mkdir()
        document = Project(folder, code=True).run(*RAY)
        self.expected = digests(document)
        self.seconds = {stage["name"]: stage["seconds"] for stage in document["stages"]}


def chain(road, folder, *, draw: random.Random, stages=STAGES) -> Tally:
    """Kill a run in each of the stages, in order, then let it go on to its end: one point, and one a stuck start."""
    folder.mkdir()
    project, killed, tally = Project(folder, code=True), [], Tally()
    for stage in stages:
        delay, victim = draw.uniform(0, road.seconds[stage]), draw.choice(("command", "flow"))
        struck, stuck = _kill_in(project, stage, delay, victim)
        killed += [stage] if struck else []
        if stuck:
            tally.add(f"{folder.name}, started to be killed in {stage}", STUCK, stuck)
    verdict, sentences = _judged(road, project)
    tally.add(folder.name, verdict, sentences, kills=killed)
    return tally


def _judged(road, project):
    process = project.start(*COMMAND)
    out, err = _ended(process)
    if process.returncode:
        return STUCK, [f"the command does not go on: {err}", project.log()]
    found, verified = digests(json.loads(out)), project.vitops("verify")
    wrong = [f"{name}: {found.get(name)} instead of {value}" for name, value in road.expected.items()]
    if found == road.expected and not verified.returncode:
        return SAME, []
    return DIVERGENT, [*(wrong if found != road.expected else []), verified.stdout]


def _kill_in(project, stage, delay, victim):
    """Whether the run was killed before it had done the stage, and what is wrong if it is stuck."""
    before = set(_records(project))
    process = project.start(*COMMAND)
    record = _wait_for(project, process, stage, before)
    time.sleep(delay if record else 0)
    if record is None or process.poll() is not None:
        return False, _stuck(project, process, stage)
    running, flow = _status(record, stage) == "running", json.loads(record.read_text())["pid"]
    _kill_group(process.pid if victim == "command" else flow)
    _, err = _ended(process)
    hung = victim == "flow" and flow != process.pid and process.returncode == -signal.SIGKILL
    return running, [f"the command hangs after its flow was killed: {err}", project.log()] if hung else []


def _stuck(project, process, stage):
    """Of a start that was not struck: nothing if it ended well, as its stage was too short, or else what is wrong."""
    hangs = process.poll() is None
    if hangs:
        _kill_group(process.pid)
    _, err = _ended(process)
    if hangs:
        return [f"the command has not come to {stage} after {PATIENCE} s: {err}", project.log()]
    return [f"the command ended with {process.returncode}: {err}", project.log()] if process.returncode else []


def _ended(process):
    """What the command wrote; one that does not end is killed."""
    try:
        return process.communicate(timeout=2 * PATIENCE)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)
        return process.communicate()


def _wait_for(project, process, stage, before):
    """The record of this run once it has come to the stage; None when the run ended, or never came to it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        for record in set(_records(project)) - before:
            if _status(record, stage) == "running":
                return record
        time.sleep(0.05)
    return None


def _records(project):
    return project.folder.glob(".vitops/runs/*/run.json")


def _status(record, stage):
    stages = json.loads(record.read_text())["stages"]
    return next(entry["status"] for entry in stages if entry["name"] == stage)


def _kill_group(leader):
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
