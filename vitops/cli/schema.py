"""``vitops schema``: what pipelines.yaml may say."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from vitops.config.load import find_root
from vitops.config.schema import PATH, text


def schema(
    write: Annotated[bool, typer.Option("--write", help=f"Write it to {PATH} in the project instead.")] = False,
) -> None:
    """Print the JSON Schema of pipelines.yaml: every key with its type, range, default and meaning."""
    if not write:
        sys.stdout.write(text())
        return
    target = find_root(Path.cwd()) / PATH
    target.parent.mkdir(exist_ok=True)
    target.write_text(text(), encoding="utf-8")
    sys.stderr.write(f"{target}\n")
