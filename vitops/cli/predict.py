"""``vitops predict PACKAGE IMAGE...``: the five most probable classes of each image."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vitops.packaging.text import printable

if TYPE_CHECKING:
    from vitops.packaging.predict import Prediction

_NOT_A_TERMINAL = 200
"""Columns where stdout is a file or a pipe: wide enough that no name is folded."""


def predict(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="Folder of a package, as `vitops run` prints it.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG or JPEG files.")],
    model: Annotated[Literal["int8", "fp32"], typer.Option("--model", help="Which ONNX file to run.")] = "int8",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Print the top-5 classes of each image, after checking the package's files against its receipt."""
    from vitops.packaging.predict import predict as run  # ONNX Runtime: not needed to print --help

    found = run(package, images, model=model)
    if as_json:
        document = {"package": str(package), "model": model, "predictions": [entry.to_json() for entry in found]}
        typer.echo(json.dumps(document, indent=1))
        return
    console = Console() if Console().is_terminal else Console(width=_NOT_A_TERMINAL)
    for entry in found:
        console.print(Text(printable(str(entry.image)), style="bold"), soft_wrap=True)
        console.print(_table(entry))


def _table(prediction: "Prediction") -> Table:
    """Names are shown as plain text: what looks like markup or a terminal sequence in them does nothing."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    table.add_column("")
    for guess in prediction.guesses:
        bar = "█" * round(24 * guess.probability)
        table.add_row(Text(printable(guess.name)), f"{100 * guess.probability:.2f} %", Text(bar, style="cyan"))
    return table
