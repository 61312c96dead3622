"""``vitops explain PIPELINE [STAGE]``: what changed since a stage last ran."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitops.cli.console import emit
from vitops.cli.options import AsJson, File, Overrides, PipelineName, Profile, Workers, request
from vitops.packaging.text import printable
from vitops.plan.explain import document
from vitops.plan.explain import explain as run
from vitops.plan.opening import open_project

if TYPE_CHECKING:
    from rich.console import Console


def explain(
    name: PipelineName,
    stage: Annotated[str | None, typer.Argument(metavar="[STAGE]", help="One stage; all by default.")] = None,
    file: File = None,
    profile: Profile = None,
    overrides: Overrides = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Name the input, parameter, definition, library or declared fact that changed since each stage last ran."""
    opened = open_project(request(Path.cwd(), name, file=file, profile=profile, overrides=overrides, workers=workers))
    examined = run(opened.root, opened.store, opened.ledger, opened.project, name, stage=stage)
    explained = document(name, examined)
    emit(explained, as_json=as_json, render=lambda console: _render(explained["stages"], console))


def _render(stages: list[dict[str, Any]], console: "Console") -> None:
    for stage in stages:
        console.print(f"{stage['name']:<10} {stage['status']}")
        for change in stage["changes"]:
            line = f"  {change['what']} {change['name']}: {change['old']} -> {change['new']}"
            console.print(printable(line), soft_wrap=True)
