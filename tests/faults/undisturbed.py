"""A run of the small road that nothing disturbs, kept stage by stage, and how disturbed ones are judged by it."""

import shutil
import tempfile
import time
import traceback
from pathlib import Path

import forked
from disk_operations import Operations
from small_road import EXACT, STAGES, Road, content, differences, problems, redone
from tally import DIVERGENT, SAME, STUCK

OPENING = "opening"
"""What comes before the stages: store and ledger are made or opened, the code is read, the run gets its record."""
INTERVAL = 1
"""Steps between two checkpoints of ``small.yaml``, so those that a kill may cost."""


class Undisturbed:
    """The store before and after every stage to ``until``, below ``root``; ``seconds`` is what each stage took."""

    def __init__(self, root, *, until=STAGES[-1]):
        (root / "project").mkdir()
        self.road, self._root, self._operations = Road(root / "project"), root, {}
        self.stages = STAGES[: STAGES.index(until) + 1]
        self.road.imports()
        self.seconds = forked.answer(self._run)
        assert list(self.seconds) == list(self.stages), self.seconds
        self.expected = {stage: content(self._after(stage)) for stage in (OPENING, *self.stages)}
        for stage, found in self.expected.items():
            assert not (problems(self._after(stage)) or found["unnamed"] or found["left over"]), (stage, found)

    def copy_before(self, stage, home):
        """Make ``home`` the store as it was before the stage; before the opening there is none."""
        if stage != OPENING:
            index = self.stages.index(stage)
            self.copy(self._after(self.stages[index - 1] if index else OPENING), home)

    def copy(self, store, home):
        """Make ``home`` a copy of the store."""
        shutil.copytree(store, home)

    def operations(self, stage):
        """The disk operations of the stage, as (thread, primitive)."""
        if stage not in self._operations:
            self._operations[stage] = [tuple(one) for one in forked.answer(lambda: self._rehearse(stage))]
        return self._operations[stage]

    def numbered(self, home, stage, fault=None):
        """Run up to the end of the stage, whose operations are numbered and struck by the fault; all that was done."""
        with Operations(fault) as operations:
            self._go(home, stage, reached=lambda name: operations.begin() if name == stage else None)
        return operations.done

    def judge(self, home, until, *, at_risk=INTERVAL):
        """Run the road again in a disturbed store, as anybody would, and compare: (verdict, sentences).

        More than ``at_risk`` steps of a training that are done anew are a difference as well; None allows any number.
        """
        try:
            self._go(home, until)
            expected, found = self.expected[until], content(home)
            if until not in EXACT:  # the bytes of a killed report are another report's than those of the next
                expected = {**expected, "unnamed": found["unnamed"]}
            found = differences(found, expected) + [str(problem) for problem in problems(home)]
            found += [] if at_risk is None else redone(home, more_than=at_risk)
        except Exception:  # noqa: BLE001 - whatever stands in the way of going on is the finding
            return STUCK, [traceback.format_exc()]
        return (DIVERGENT, found) if found else (SAME, [])

    def scratch(self):
        """A folder for disturbed stores, removed after the block."""
        return tempfile.TemporaryDirectory(dir=self._root, prefix="disturbed-")

    def _after(self, stage):
        return self._root / f"after-{stage}"

    def _run(self):
        home, seconds = self._root / "run", {}
        self.road.open(home)  # reads the code, which later runs of the same machine remember
        shutil.copytree(home, self._after(OPENING))
        for stage in self.stages:
            clock = time.monotonic()
            self.road.run(home, until=stage)
            seconds[stage] = time.monotonic() - clock
            shutil.copytree(home, self._after(stage))
        return seconds

    def _go(self, home, until, *, reached=lambda stage: None):
        """Open the store and run the road to the end of the stage, or only open it."""
        reached(OPENING)
        if until == OPENING:
            self.road.open(home)
        else:
            self.road.run(home, until=until, reached=reached)

    def _rehearse(self, stage):
        with self.scratch() as folder:
            home = Path(folder, "home")
            self.copy_before(stage, home)
            return self.numbered(home, stage)
