"""``--allow-environment-change`` is a permission, not a parameter."""

from pathlib import Path

from vitops.plan.opening import open_project
from vitops.plan.request import RunRequest

ROOT = Path(__file__).parents[3]


def test_allowing_another_arithmetic_changes_no_stage_and_reaches_the_place(tmp_path):
    plain = open_project(RunRequest(pipeline="quickstart", root=ROOT, home=tmp_path))
    allowed = open_project(RunRequest(pipeline="quickstart", root=ROOT, home=tmp_path, allow_environment_change=True))
    assert plain.stages == allowed.stages
    assert (plain.place().allow_environment_change, allowed.place().allow_environment_change) == (False, True)
