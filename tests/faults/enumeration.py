"""Every single disk operation of the small road goes wrong once, and each time the road is run again.

For each stage the store is the one that the undisturbed run had before it, and a rehearsal numbers the stage's
operations. Then each is the last of one child (before it, after it, halfway), or fails in one with an error. After
that the road is run again in what the child left, to ``prune`` or to the struck stage where that comes later.
"""

import itertools
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import forked
from disk_operations import ERRORS, Fault, faults
from small_road import STAGES
from undisturbed import SAME, STUCK, Undisturbed

from vitops.errors import VitopsError

COMPARED_AT = "prune"
UNREACHED, UNNAMED = "unreached", "unnamed error"


@dataclass(frozen=True)
class Point:
    """One fault in one stage, and the primitive it strikes."""

    stage: str
    fault: Fault
    primitive: str

    def __str__(self):
        fault = self.fault
        return f"{self.stage}: {fault.kind} at operation {fault.number} ({self.primitive}) of thread {fault.stream}"


@dataclass
class Tally:
    """What came of many disturbances; ``findings`` says what was not well."""

    points: int = 0
    kills: Counter = field(default_factory=Counter)
    verdicts: Counter = field(default_factory=Counter)
    findings: list = field(default_factory=list)

    def add(self, what, stage, verdict, sentences, *, kills=1, well=(SAME, UNREACHED)):
        """Count one disturbance of a stage."""
        self.points += 1
        self.verdicts[verdict] += 1
        if kills:
            self.kills[stage] += kills
        if verdict not in well:
            self.findings.append((str(what), verdict, sentences))


def kills(undisturbed, stages):
    """Every point at which a child can be killed in these stages."""
    for stage in stages:
        done = undisturbed.operations(stage)
        names = _names(done)
        yield from (Point(stage, fault, names[fault.stream, fault.number]) for fault in faults(done))


def errors(undisturbed, stages):
    """Every operation of these stages once, with the errors in turn."""
    turn = itertools.cycle(ERRORS)
    for stage in stages:
        for (stream, number), name in _names(undisturbed.operations(stage)).items():
            yield Point(stage, Fault(stream, number, "error", next(turn)), name)


def strike(undisturbed: Undisturbed, points, *, jobs) -> Tally:
    """Bring about each point in a child of its own and judge what the next run makes of it."""
    tally = Tally()
    tasks = {(lambda point=point: _struck(undisturbed, point)): point for point in points}
    for task, found in forked.each(tasks, jobs=jobs):
        point = tasks[task]
        verdict, sentences = found if isinstance(found, list) else (STUCK, [str(found["died"])])
        killed = point.fault.kind != "error" and verdict != UNREACHED
        tally.add(point, point.stage, verdict, sentences, kills=int(killed))
    return tally


def _names(done):
    counts, names = Counter(), {}
    for stream, name in done:
        counts[stream] += 1
        names[stream, counts[stream]] = name
    return names


def _struck(undisturbed, point):
    until = max(point.stage, COMPARED_AT, key=STAGES.index)
    with undisturbed.scratch() as folder:
        home = Path(folder, "home")
        undisturbed.copy_before(point.stage, home)
        ended = forked.end(forked.start(lambda: _victim(undisturbed, home, point)))
        verdict, sentences = undisturbed.judge(home, until if until in undisturbed.stages else point.stage)
    if verdict == SAME and point.fault.kind == "error":
        return (UNNAMED, ["neither a VitopsError nor a run to the end"]) if ended else (SAME, [])
    if ended == 0:
        return (UNREACHED if verdict == SAME else verdict), sentences
    if ended != -signal.SIGKILL:
        return STUCK, [f"the child was not killed but ended with {ended}"]
    return verdict, sentences


def _victim(undisturbed, home, point):
    try:
        undisturbed.numbered(home, point.stage, point.fault)
    except VitopsError as error:
        if point.fault.kind != "error" or str(home) not in str(error):
            raise
