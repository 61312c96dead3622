"""Options that several verbs share, so that they read and mean the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

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
