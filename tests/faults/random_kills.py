"""The whole small road, export and report included, with a kill at a random moment in every stage of it.

A chain is one store: each stage is begun in a forked child, killed after a random time, and the next child runs the
road again from the beginning, through the killed stage and into the next. At its end it must be what the undisturbed
run left. Moments are drawn from the seed; how much work fits in one depends on the machine.
"""

import math
import os
import random
import signal
import time
from pathlib import Path

import forked
from tally import STUCK, Tally
from undisturbed import Undisturbed

SHARE = 0.9
"""Of the time that the undisturbed stage took: a moment later than that often comes too late."""


def chains(undisturbed: Undisturbed, *, least, seed, jobs) -> Tally:
    """Disturb roads until at least this many children were killed, or far more were begun; a point is a road.

    Where that many can be one in each stage, they go on until each was struck.
    """
    stages, tally = undisturbed.stages, Tally()
    names = [f"{seed}-{number}" for number in range(4 * least // len(stages) + 8 + jobs)]
    while names:
        missing = least - tally.kills.total()
        if missing <= 0 and (least < len(stages) or all(tally.kills[stage] for stage in stages)):
            break
        begun = min(jobs, max(1, math.ceil(missing / len(stages))))
        tasks = [lambda own=own: _chain(undisturbed, own) for own in names[:begun]]
        names = names[begun:]
        for _, found in forked.each(tasks, jobs=jobs):
            verdict, sentences = found.get("judged", (STUCK, [str(found)]))
            tally.add(f"chain {found.get('chain')}", verdict, sentences, kills=found.get("killed", []))
    return tally


def _chain(undisturbed, name):
    draw, killed = random.Random(name), []
    with undisturbed.scratch() as folder:
        home = Path(folder, "home")
        undisturbed.copy_before(undisturbed.stages[0], home)
        for stage in undisturbed.stages:
            if _kill_in(undisturbed, home, stage, draw.uniform(0, SHARE * undisturbed.seconds[stage])):
                killed.append(stage)
        judged = undisturbed.judge(home, undisturbed.stages[-1])
    return {"chain": name, "killed": killed, "judged": judged}


def _kill_in(undisturbed, home, stage, delay):
    """Whether the child was killed before it had done the stage."""
    reading, writing = os.pipe()
    reached = lambda name: os.write(writing, b"!") if name == stage else None  # noqa: E731
    pid = forked.start(lambda: undisturbed.road.run(home, until=stage, reached=reached))
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    ended = forked.end(pid)
    assert ended in (0, -signal.SIGKILL), f"the child of {stage} ended with {ended}"
    return ended != 0
