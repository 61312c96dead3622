"""``make faults``: kill everywhere, run again, compare with what was never disturbed.

Six parts: every disk operation of the small road (killed before it, after it, halfway); the power cut at every one
where that leaves something else, without the bytes and names that were not synced; every one failing with an error;
kills at random moments on the whole small road; every file of a killed run damaged; kills of the real flow. The last
line is one JSON object; exit code 0 only if nothing diverged and nothing had to be repaired by hand.

    PYTHONPATH=tests python tests/faults/campaign.py [--every N] [--random N] [--real N] [--jobs N] [--seed N]
                                                     [--table FILE]
"""

import argparse
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from damage import damage
from enumeration import cuts, errors, kills, strike
from random_kills import chains
from real_kills import STAGES, RealRoad, chain
from small_road import EXACT
from small_road import STAGES as SMALL
from tally import AGAIN, DIVERGENT, NAMED, SAME, STUCK, UNNAMED, UNREACHED, Tally
from undisturbed import OPENING, Undisturbed

NUMBERED = (OPENING, *EXACT)
"""Where every operation is struck."""
OPERATIONS, CUTS, ERRORS, MOMENTS, DAMAGE, REAL = (
    "every operation",
    "every power cut",
    "every error",
    "random moments",
    "damaged files",
    "the real flow",
)

_LONG = 500
"""Characters of a finding that are shown."""


def main():
    """Run what the arguments ask for; the exit code."""
    options, begun = _options(), time.monotonic()
    _say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="vitops-faults-", dir=_fast_folder()) as folder:
        found = _small(Path(folder), options)
    with tempfile.TemporaryDirectory(prefix="vitops-faults-") as folder:
        found[REAL] = _real(Path(folder), options)
    summary = _summary(found, options) | {"seconds": round(time.monotonic() - begun)}
    table = _table(found, summary)
    _say(table)
    if options.table:
        options.table.write_text(f"{table}\n", encoding="utf-8")
    _say(json.dumps(summary))
    return 0 if summary["holds"] else 1


def _fast_folder():
    """Where thousands of small stores are written: in memory if there is room, as a SIGKILL leaves both alike."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    return memory if roomy and "TMPDIR" not in os.environ else None


def _small(root, options):
    """The parts that need no Ray, by name: all children are forked from this process."""
    undisturbed = Undisturbed(root)
    _say(f"undisturbed: {json.dumps({stage: round(took, 2) for stage, took in undisturbed.seconds.items()})} s")
    found = {}
    for part, points in ((OPERATIONS, kills), (CUTS, cuts), (ERRORS, errors)):
        found[part] = Tally()
        every = list(points(undisturbed, NUMBERED))[:: options.every]
        for stage, chosen in itertools.groupby(every, key=lambda point: point.stage):
            told = _timed(f"{part} of {stage}", strike, undisturbed, list(chosen), jobs=options.jobs)
            found[part] += told
    asked = {"least": options.random, "seed": options.seed, "jobs": options.jobs}
    found[MOMENTS] = _timed(MOMENTS, chains, undisturbed, **asked)
    found[DAMAGE] = _timed(DAMAGE, damage, undisturbed, root, jobs=options.jobs, every=options.every)
    return found


def _real(root, options):
    """Chains of real runs until at least ``options.real`` of them were killed, or far more were begun."""
    tally = Tally()
    if not options.real:
        return tally
    road, draw = RealRoad(root / "undisturbed"), random.Random(options.seed)
    _say(f"undisturbed with Prefect and Ray: {json.dumps(road.seconds)} s")
    for number in range(2 * options.real // len(STAGES) + 2):
        missing, left = max(0, options.real - tally.kills.total()), _left(tally.kills, STAGES, options.real)
        if not missing and not left:
            break
        drawn = STAGES if missing >= len(STAGES) else {*draw.sample(STAGES, missing), *left}
        stages = sorted(drawn, key=STAGES.index)
        tally += _timed(f"real chain {number}", chain, road, root / f"chain-{number}", draw=draw, stages=stages)
    return tally


def _left(kills, stages, least):
    """Stages in which nothing was killed yet, where as many kills were asked for as there are stages."""
    return [stage for stage in stages if not kills[stage]] if least >= len(stages) else []


def _timed(what, work, *args, **options):
    clock = time.monotonic()
    tally = work(*args, **options)
    took = f"{time.monotonic() - clock:.0f} s"
    _say(f"{what}: {tally.points} disturbed, {tally.kills.total()} killed, {dict(tally.verdicts)}, {took}")
    for finding in tally.findings:
        _say("\n    ".join(str(line)[:_LONG] for line in finding))
    return tally


def _summary(found, options):
    """The document of the last line; ``holds`` only if all was reached and well and as much was done as asked for."""
    verdicts = sum((tally.verdicts for tally in found.values()), Counter())
    per_stage = _kills_per_stage(found)
    summary = {
        "kills": sum(per_stage.values()),
        "points": found[OPERATIONS].points + found[CUTS].points,
        "divergent": verdicts[DIVERGENT],
        "manual_repairs": verdicts[STUCK],
        "errors": found[ERRORS].points,
        "unnamed_errors": verdicts[UNNAMED],
        "unreached": verdicts[UNREACHED],
        "damaged": found[DAMAGE].points,
        "named": verdicts[NAMED],
        "made_again": verdicts[AGAIN],
        "power_cuts": found[CUTS].kills.total(),
        "random_kills": found[MOMENTS].kills.total(),
        "real_kills": found[REAL].kills.total(),
        "kills_per_stage": per_stage,
        "every": options.every,
        "seed": options.seed,
    }
    wrong = ("divergent", "manual_repairs", "unnamed_errors", "unreached")
    enough = summary["random_kills"] >= options.random and summary["real_kills"] >= options.real
    enough = enough and all(found[part].points for part in (OPERATIONS, CUTS, ERRORS, DAMAGE))
    return summary | {"holds": enough and _spread(found, options) and not any(summary[name] for name in wrong)}


def _spread(found, options):
    """Whether every stage was struck in each part of which enough was asked for."""
    least = len(NUMBERED) if options.every == 1 else 0
    asked = ((OPERATIONS, NUMBERED, least), (CUTS, NUMBERED, least))
    asked = (*asked, (MOMENTS, SMALL, options.random), (REAL, STAGES, options.real))
    return not any(_left(found[part].kills, stages, number) for part, stages, number in asked)


def _kills_per_stage(found):
    total = sum((tally.kills for tally in found.values()), Counter())
    return {stage: total[stage] for stage in (OPENING, *STAGES) if total[stage]}


def _table(found, summary):
    """Kills of each stage in each part, as Markdown, and the other counts below."""
    parts = (OPERATIONS, CUTS, MOMENTS, REAL)
    rows = [("stage", *parts, "kills"), ("---", *["---:"] * len(parts), "---:")]
    for stage, killed in summary["kills_per_stage"].items():
        rows.append((stage, *(f"{found[part].kills[stage]:,}" for part in parts), f"{killed:,}"))
    rows.append(("together", *(f"{found[part].kills.total():,}" for part in parts), f"{summary['kills']:,}"))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    same = found[DAMAGE].verdicts[SAME]
    damaged = (
        f"{summary['damaged']} damaged files: {same} same, {summary['named']} named, {summary['made_again']} made again"
    )
    wrong = f"{summary['divergent']} divergent, {summary['manual_repairs']} manual repairs"
    facts = f"{summary['errors']:,} errors, {summary['unnamed_errors']} unnamed. {damaged}. {wrong}."
    return "\n".join([*lines, "", f"{facts} Seed {summary['seed']}, {summary['seconds']:,} s."])


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="take every N-th point of the enumeration (default: all)")
    parser.add_argument("--random", type=int, default=170, help="kills at random moments (default: 170)")
    parser.add_argument("--real", type=int, default=30, help="kills of the real flow (default: 30)")
    parser.add_argument("--jobs", type=int, default=2, help="children at once (default: 2)")
    parser.add_argument("--table", type=Path, help="file to write the table to, as Markdown")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="default: from the clock")
    return parser.parse_args()


def _say(text):
    print(text, flush=True)  # noqa: T201 -- a script for the console


if __name__ == "__main__":
    sys.exit(main())
