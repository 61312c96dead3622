"""Whatever of vitops a stage executes, its code digest reaches: looked at while the whole small road runs."""

import inspect
import pkgutil
import sys
import threading
from collections import defaultdict
from pathlib import Path

import forked
from small_road import STAGES, Road

from vitops.plan.code import PACKAGE, code_digest, vitops_package


def test_every_function_that_a_stage_executes_is_in_its_digest(tmp_path):
    road = Road(tmp_path)
    road.imports()
    reached, executed = forked.answer(lambda: _follow(road, tmp_path / "home"))
    assert all(len(executed[stage]) > 10 for stage in STAGES)
    assert {stage: sorted(set(executed[stage]) - set(reached[stage])) for stage in STAGES} == {s: [] for s in STAGES}


def _follow(road, home):
    """Stage -> definitions that its digest counts; stage -> definitions with a function that it called."""
    stages, _ = road.open(home)
    package = vitops_package()
    reached = {stage.name: sorted(code_digest(stage.roots, package=package).definitions) for stage in stages}
    noting = _Noting({stage.name: stage.roots[0] for stage in stages})
    threading.setprofile(noting)
    sys.setprofile(noting)
    road.run(home, until=STAGES[-1], reached=noting.begin)
    sys.setprofile(None)
    return reached, {stage: sorted(names) for stage, names in noting.executed.items()}


class _Noting:
    """A profile function: what is called between the call of a stage's own function and its return."""

    def __init__(self, roots):
        self._roots = {stage: inspect.unwrap(pkgutil.resolve_name(root)).__code__ for stage, root in roots.items()}
        self._stage, self._inside = "", False
        self.executed = defaultdict(set)

    def begin(self, stage):
        self._stage = stage

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if code is self._roots.get(self._stage) and event in ("call", "return"):
            self._inside = event == "call"
        if self._inside and event == "call" and (name := _definition(code)):
            self.executed[self._stage].add(name)


def _definition(code):
    """Dotted name of the definition of vitops that this function belongs to; none for the body of a class or module."""
    path = Path(code.co_filename)
    if not code.co_flags & inspect.CO_OPTIMIZED or not path.is_relative_to(PACKAGE):
        return None
    module = ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    name = code.co_qualname.split(".")[0]
    return None if name.startswith("<") else f"{module}.{name}"
