"""Every file of a killed run's store is damaged once: a flipped bit, no bytes at all, half of them.

The next run must come to the undisturbed digests, and the store must be clean after it. Two things need not be as if
nothing had happened: a published artifact that was damaged is made again, and that execution has a receipt of its own;
a receipt cannot be made again, so ``verify`` must name exactly that file.
"""

import signal
from pathlib import Path

import forked
from disk_operations import Fault
from small_road import content, differences, problems
from tally import AGAIN, DIVERGENT, NAMED, STUCK, Tally
from undisturbed import Undisturbed

KINDS = ("flipped", "emptied", "halved")
STAGE, UNTIL = "student", "prune"


def damage(undisturbed: Undisturbed, folder, *, jobs, every=1) -> Tally:
    """Kill the student's training late, then damage each file of the store in each way, each in a copy."""
    home = folder / "killed"
    undisturbed.copy_before(STAGE, home)
    writes = [stream for stream, _ in undisturbed.operations(STAGE)].count("checkpoint")
    late = Fault("checkpoint", writes * 3 // 4, "before")
    ended = forked.end(forked.start(lambda: undisturbed.numbered(home, STAGE, late)))
    assert ended == -signal.SIGKILL, ended
    tally = Tally()
    names = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and path.stat().st_size)
    cases = [(name, kind) for name in names for kind in KINDS][::every]
    tasks = {(lambda case=case: _damaged(undisturbed, home, *case)): case for case in cases}
    for task, found in forked.each(tasks, jobs=jobs):
        verdict, sentences = found if isinstance(found, list) else (STUCK, [str(found["died"])])
        tally.add(tasks[task], verdict, sentences)
    return tally


def _damaged(undisturbed, killed, name, kind):
    with undisturbed.scratch() as folder:
        home = Path(folder, "home")
        undisturbed.copy(killed, home)
        _spoil(home / name, kind)
        verdict, sentences = undisturbed.judge(
            home, UNTIL, at_risk=None
        )  # a damaged checkpoint costs what is since the one before
        if verdict != DIVERGENT:
            return verdict, sentences
        found, expected, named = content(home), undisturbed.expected[UNTIL], {path for path, _ in problems(home)}
        if name.startswith("ledger/") and found["artifacts"] == expected["artifacts"] and named == {name}:
            return NAMED, []
        if name.startswith("objects/") and not named and once_more(found, expected, Path(name).stem):
            return AGAIN, []
        return verdict, sentences


def once_more(found, expected, damaged):
    """Whether all is as expected but for one receipt that came twice, about an artifact that has the damaged file."""
    receipts = found["receipts"]
    once = [one for number, one in enumerate(receipts) if one not in receipts[:number]]
    (twice, *_) = [one for number, one in enumerate(receipts) if one in receipts[:number]] or [None]
    if len(receipts) != len(once) + 1 or differences(found | {"receipts": once}, expected):
        return False
    return damaged in (twice["artifact"]["digest"], *twice["files"].values())


def _spoil(path, kind):
    data = bytearray(path.read_bytes())
    path.chmod(0o644)
    if kind == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: {"flipped": len(data), "emptied": 0, "halved": len(data) // 2}[kind]])
