"""Every single disk operation of the small road goes wrong once, and each time the road is run again.

For each stage the store is the one that the undisturbed run had before it, and a rehearsal numbers the stage's
operations. Then each is the last of one child (before it, after it, halfway), or has the power cut there, or fails with
an error. After that the road is run again in what the child left, to the end of the struck stage. Then the store must
hold what the undisturbed one holds there; the stages after it are functions of just that, so only every fortieth point
goes on through them.
"""

import itertools
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import forked
from disk_operations import CUTS, ERRORS, Fault, faults
from small_road import EXACT
from tally import SAME, STUCK, UNNAMED, UNREACHED, Tally
from undisturbed import Undisturbed

from vitops.errors import VitopsError

FURTHER = 40
"""Every so many points the road is run to the last exact stage."""
TRIES, MISSED = 3, 4


@dataclass(frozen=True)
class Point:
    """One fault in one stage, and the primitive it strikes."""

    stage: str
    fault: Fault
    primitive: str

    def __str__(self):
        fault = self.fault
        return f"{self.stage}: {fault.kind} at operation {fault.number} ({self.primitive}) of thread {fault.stream}"


def kills(undisturbed, stages):
    """Every point at which a child can be killed in these stages."""
    return (point for point in _points(undisturbed, stages) if point.fault.kind not in CUTS)


def cuts(undisturbed, stages):
    """Every point of these stages at which a power cut leaves something else."""
    return (point for point in _points(undisturbed, stages) if point.fault.kind in CUTS)


def errors(undisturbed, stages):
    """Every operation of these stages once, with the errors in turn."""
    turn = itertools.cycle(ERRORS)
    for stage in stages:
        for (stream, number), name in _names(undisturbed.operations(stage)).items():
            yield Point(stage, Fault(stream, number, "error", next(turn)), name)


def strike(undisturbed: Undisturbed, points, *, jobs) -> Tally:
    """Bring about each point in a child of its own and judge what the next run makes of it."""
    tally, tasks = Tally(), {}
    for number, point in enumerate(points):
        until = point.stage if (number + 1) % FURTHER else EXACT[-1]
        tasks[lambda point=point, until=until: _struck(undisturbed, point, until)] = point
    for task, found in forked.each(tasks, jobs=jobs):
        point = tasks[task]
        verdict, sentences = found if isinstance(found, list) else (STUCK, [str(found["died"])])
        killed = point.fault.kind != "error" and verdict != UNREACHED
        tally.add(point, verdict, sentences, kills=[point.stage] if killed else [])
    return tally


def _points(undisturbed, stages):
    for stage in stages:
        done = undisturbed.operations(stage)
        names = _names(done)
        yield from (Point(stage, fault, names[fault.stream, fault.number]) for fault in faults(done))


def _names(done):
    counts, names = Counter(), {}
    for stream, name in done:
        counts[stream] += 1
        names[stream, counts[stream]] = name
    return names


def _struck(undisturbed, point, until):
    for _ in range(TRIES):  # what the other thread does meanwhile can take an operation from this one
        verdict, sentences = _once(undisturbed, point, until)
        if verdict != UNREACHED:
            break
    return verdict, sentences


def _once(undisturbed, point, until):
    with undisturbed.scratch() as folder:
        home = Path(folder, "home")
        undisturbed.copy_before(point.stage, home)
        ended = forked.end(forked.start(lambda: _victim(undisturbed, home, point)))
        verdict, sentences = undisturbed.judge(home, until)
    if verdict != SAME:
        return verdict, sentences
    if ended == MISSED:
        return UNREACHED, ["the child ended before"]
    if point.fault.kind == "error":
        return (UNNAMED, ["neither a VitopsError nor a run to the end"]) if ended else (SAME, [])
    if ended != -signal.SIGKILL:
        return STUCK, [f"the child was not killed but ended with {ended}"]
    return SAME, []


def _victim(undisturbed, home, point):
    try:
        done = undisturbed.numbered(home, point.stage, point.fault)
    except VitopsError as error:
        if point.fault.kind != "error" or str(home) not in str(error):
            raise
        return 0
    reached = (point.fault.stream, point.fault.number) in _names(done)
    return 0 if reached else MISSED
