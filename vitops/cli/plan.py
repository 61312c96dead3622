"""``vitops plan PIPELINE``: what a run would do, without doing it."""

from pathlib import Path
from typing import TYPE_CHECKING

from vitops.cli.console import complain, emit
from vitops.cli.options import AsJson, File, Overrides, PipelineName, Profile, Until, Workers, request
from vitops.cli.tables import stage_table
from vitops.plan.opening import open_project
from vitops.plan.plan import document

if TYPE_CHECKING:
    from rich.console import Console


def plan(
    name: PipelineName,
    file: File = None,
    profile: Profile = None,
    overrides: Overrides = None,
    until: Until = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Say of every stage whether it is a hit, would run, or waits for an input that is not known yet."""
    project = open_project(
        request(Path.cwd(), name, file=file, profile=profile, overrides=overrides, until=until, workers=workers)
    )
    stages = project.plan()
    for note in project.check_weights(stages):
        complain(note)
    planned = document(name, stages)

    def render(console: "Console") -> None:
        console.print(stage_table(planned["stages"], ("name", "status", "digest", "reason")))

    emit(planned, as_json=as_json, render=render)
