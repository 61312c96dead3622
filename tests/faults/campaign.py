"""``make faults``: kill everywhere, run again, compare with what was never disturbed.

Five parts: every disk operation of the small road (killed before it, after it, halfway, with unsynced bytes lost);
every one failing with an error; kills at random moments on the whole small road; every file of a killed run damaged;
kills of the real flow. The last line is one JSON object; exit code 0 only if nothing diverged and nothing had to be
repaired by hand.

    PYTHONPATH=tests python tests/faults/campaign.py [--every N] [--random N] [--real N] [--jobs N] [--seed N]
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import vitops  # noqa: F401 -- before timm: it declares what torchvision may lack


def main():
    """Run what the arguments ask for; the exit code."""
    options, begun = _options(), time.monotonic()
    _say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="vitops-faults-") as folder:
        summary = _small(Path(folder), options)
        _real(Path(folder), options, summary)
    for finding in summary.pop("findings"):
        _say("\n".join(str(part) for part in finding))
    _table(summary["kills_per_stage"])
    summary["seconds"] = round(time.monotonic() - begun)
    summary["holds"] = not (summary["divergent"] or summary["manual_repairs"] or summary["unnamed_errors"])
    _say(json.dumps(summary))
    return 0 if summary["holds"] else 1


def _small(root, options):
    """The parts that need no Ray: all children are forked from this process."""
    from damage import NAMED, damage
    from enumeration import UNNAMED, UNREACHED, Tally, errors, kills, strike
    from random_kills import chains
    from small_road import EXACT
    from undisturbed import DIVERGENT, STUCK, Undisturbed

    undisturbed = Undisturbed(root)
    _say(f"undisturbed: {json.dumps({stage: round(took, 2) for stage, took in undisturbed.seconds.items()})} s")
    struck = list(kills(undisturbed, EXACT))[:: options.every]
    total = strike(undisturbed, struck, jobs=options.jobs)
    _say(f"operations: {total.points} points, {dict(total.verdicts)}")
    failed = strike(undisturbed, list(errors(undisturbed, EXACT))[:: options.every], jobs=options.jobs)
    _say(f"errors: {failed.points} points, {dict(failed.verdicts)}")
    moments = chains(undisturbed, least=options.random, seed=options.seed, jobs=options.jobs, tally=Tally())
    _say(f"random moments: {sum(moments.kills.values())} kills, roads {dict(moments.verdicts)}")
    spoiled = damage(undisturbed, root, jobs=options.jobs, every=options.every)
    _say(f"damaged files: {spoiled.points} points, {dict(spoiled.verdicts)}")
    verdicts = total.verdicts + failed.verdicts + moments.verdicts + spoiled.verdicts
    per_stage = total.kills + moments.kills
    return {
        "kills": sum(per_stage.values()),
        "points": total.points,
        "divergent": verdicts[DIVERGENT],
        "manual_repairs": verdicts[STUCK],
        "errors": failed.points,
        "unnamed_errors": verdicts[UNNAMED],
        "unreached": verdicts[UNREACHED],
        "damaged": spoiled.points,
        "named": spoiled.verdicts[NAMED],
        "random_kills": sum(moments.kills.values()),
        "real_kills": 0,
        "kills_per_stage": dict(per_stage),
        "seed": options.seed,
        "findings": total.findings + failed.findings + moments.findings + spoiled.findings,
    }


def _real(root, options, summary):
    """Chains of real runs until at least ``options.real`` of them were killed; their part of the summary."""
    if not options.real:
        return
    from real_kills import STAGES, RealRoad, chain

    road, draw, number, per_stage = RealRoad(root / "real"), random.Random(options.seed), 0, Counter()
    _say(f"undisturbed with Prefect and Ray: {json.dumps(road.seconds)} s")
    while summary["real_kills"] < options.real:
        missing = options.real - summary["real_kills"]
        stages = STAGES if missing >= len(STAGES) else sorted(draw.sample(STAGES, missing), key=STAGES.index)
        killed, wrong = chain(road, root / f"chain-{number}", draw=draw, stages=stages)
        number += 1
        per_stage += killed
        summary["real_kills"] += killed.total()
        _say(f"real chain {number}: killed in {', '.join(killed)}; {'as undisturbed' if not wrong else 'NOT WELL'}")
        if wrong:
            stuck = wrong[0].startswith("the command")
            summary["manual_repairs" if stuck else "divergent"] += 1
            summary["findings"].append((f"real chain {number}", *wrong))
    summary["kills"] += summary["real_kills"]
    summary["kills_per_stage"] = dict(Counter(summary["kills_per_stage"]) + per_stage)


def _table(per_stage):
    _say("| stage | kills |\n|---|---|")
    for stage, count in per_stage.items():
        _say(f"| {stage} | {count} |")


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="take every N-th point of the enumeration (default: all)")
    parser.add_argument("--random", type=int, default=170, help="kills at random moments (default: 170)")
    parser.add_argument("--real", type=int, default=30, help="kills of the real flow (default: 30)")
    parser.add_argument("--jobs", type=int, default=2, help="children at once (default: 2)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="default: from the clock")
    return parser.parse_args()


def _say(text):
    print(text, flush=True)  # noqa: T201 -- a script for the console


if __name__ == "__main__":
    sys.exit(main())
