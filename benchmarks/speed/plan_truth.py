"""Plan against reality over random edits: a hit hits, a run runs, nothing stale, little in vain.

A miniature project (a copy of vitops with toy stages in every shape in which code reaches other code) is edited at
random: code, parameters, defaults, data, artifacts, and much that changes nothing. After each edit vitops plans, vitops
runs (both on the real store and ledger), and every stage function is called on its own from nothing. Compared are:

- plan and reality, stage by stage (a planned hit has its digest, a planned run its key, and what waited for an input
  executes exactly when its key then names nothing);
- the artifact of every exact stage and the bytes it makes from nothing: any difference is a stale hit;
- executions whose intact artifact had those bytes already: needless, whatever the edit was.

    python benchmarks/speed/plan_truth.py [--edits N] [--seed S]

The peer, on the same edits: the rule of Make and DVC, one stamp for all code (any file of the package that changed runs
every stage that is made of code). The data plane's own verdicts are not part of this: a split is taken as DVC brought
it. The last line is one JSON object; ``ratio`` is that of needless executions to all.
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
BOUND = 0.02


def main() -> None:
    """Edit, follow, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn and printed")
    arguments = parser.parse_args()
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(REPOSITORY))
    shared = Path("/dev/shm")  # the store's durability is not the question here
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        sys.path.insert(0, folder)
        seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
        print(f"seed {seed}", flush=True)
        figures = measure(Path(folder), edits=arguments.edits, seed=seed)
    print(json.dumps(figures))
    sys.exit(0 if figures["holds"] else 1)


def measure(folder: Path, *, edits: int, seed: int) -> dict[str, Any]:
    """The figures of one sequence of edits."""
    from benchmarks.edits.project import EDITS, Project

    project = Project(folder, REPOSITORY / "vitops")
    from benchmarks.edits.reality import Reality

    reality, random_, started = Reality(project), random.Random(seed), time.monotonic()
    first = reality.follow()
    counts: Counter[str] = Counter(executions=0, needless=0, wrong=len(first.wrong), stale=len(first.stale))
    planned = Counter(first.planned.values())
    by_kind: dict[str, Counter[str]] = {kind: Counter() for kind in EDITS}
    stamp = code_stamp(project.package)
    for number in range(edits):
        kind = random_.choices(list(EDITS), weights=list(EDITS.values()))[0]
        what = project.edit(kind, random_)
        verdict = reality.follow(kind)
        executed = [name for name, status in verdict.done.items() if status == "executed"]
        row = Counter(
            edits=1,
            executions=len(executed),
            needless=len(verdict.needless),
            wrong=bool(verdict.wrong),
            stale=bool(verdict.stale),
        )
        by_kind[kind] += row
        counts += row
        planned.update(verdict.planned.values())
        before, stamp = stamp, code_stamp(project.package)
        counts["peer_executions"] += len(verdict.done) - 1 if stamp != before else len(executed)
        for name in verdict.needless:
            print(f"needless: {kind} {what}: {name}")
        if verdict.wrong or verdict.stale:
            print(
                f"edit {number} ({kind}: {what}): wrong {verdict.wrong}, stale {verdict.stale}: {verdict}", flush=True
            )
    for kind, row in by_kind.items():
        print(f"{kind:16} {row['edits']:4} edits {row['executions']:5} executions {row['needless']:4} needless")
    ratio = counts["needless"] / max(1, counts["executions"])
    useful = counts["executions"] - counts["needless"]
    return {
        "edits": edits,
        "seed": seed,
        "plan_equals_reality": edits - counts["wrong"],
        "stale_hits": counts["stale"],
        "planned": dict(sorted(planned.items())),
        "executions": counts["executions"],
        "needless": counts["needless"],
        "peer_whole_package": {
            "executions": counts["peer_executions"],
            "needless_ratio": round(1 - useful / max(1, counts["peer_executions"]), 4),
        },
        "seconds": round(time.monotonic() - started, 1),
        "ratio": round(ratio, 4),
        "bound": BOUND,
        "holds": not counts["wrong"] and not counts["stale"] and ratio <= BOUND,
    }


def code_stamp(package: Path) -> str:
    """One digest over every source file: what a tool without definitions knows of code."""
    files = sorted(package.rglob("*.py"))
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()


if __name__ == "__main__":
    main()
