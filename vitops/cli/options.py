"""Options that several verbs share, so that they read and mean the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

from vitops.config.load import find_root
from vitops.plan.request import RunRequest

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]
File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="Another file with pipelines (same datasets).")
]
Profile = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="A profile of the pipeline; quick is the default.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value, e.g. teacher.epochs=3; may be repeated."),
]
PipelineName = Annotated[str, typer.Argument(metavar="PIPELINE", help="A name under pipelines: of pipelines.yaml.")]
Until = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="W", min=1, help="Worker processes of training stages (a power of two)."),
]

AllowEnvironmentChange = Annotated[
    bool,
    typer.Option(
        "--allow-environment-change",
        help="Go on from a checkpoint that was written under another arithmetic; the receipt says so.",
    ),
]


def request(
    folder: Path,
    pipeline: str,
    *,
    file: Path | None = None,
    profile: str | None = None,
    overrides: list[str] | None = None,
    until: str | None = None,
    workers: int | None = None,
    allow_environment_change: bool = False,
) -> RunRequest:
    """The request that these options make in the project around ``folder``. Raises UsageError outside a project."""
    return RunRequest(
        pipeline=pipeline,
        root=find_root(folder),
        file=None if file is None else file.absolute(),
        profile=profile,
        overrides=tuple(overrides or ()),
        until=until,
        workers=workers,
        allow_environment_change=allow_environment_change,
    )
