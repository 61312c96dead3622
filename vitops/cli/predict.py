"""``vitops predict PACKAGE IMAGE...``: the five most probable classes of each image."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vitops.cli.console import emit
from vitops.cli.options import AsJson
from vitops.packaging.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from vitops.packaging.predict import Prediction


def predict(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="Folder of a package, as `vitops run` prints it.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="PNG or JPEG files.")],
    model: Annotated[Literal["int8", "fp32"], typer.Option("--model", help="Which ONNX file to run.")] = "int8",
    as_json: AsJson = False,
) -> None:
    """Print the top-5 classes of each image, after checking the package's files against its receipt."""
    from vitops.packaging.predict import predict as run  # ONNX Runtime: not needed to print --help

    found = run(package, images, model=model)
    document = {"package": str(package), "model": model, "predictions": [entry.to_json() for entry in found]}
    emit(document, as_json=as_json, render=lambda console: _show(found, console))


def _show(predictions: Sequence["Prediction"], console: "Console") -> None:
    from rich.text import Text

    for entry in predictions:
        console.print(Text(printable(str(entry.image)), style="bold"), soft_wrap=True)
        console.print(_table(entry))


def _table(prediction: "Prediction") -> "Table":
    """Names are shown as plain text: what looks like markup or a terminal sequence in them does nothing."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    table.add_column("")
    for guess in prediction.guesses:
        bar = "█" * round(24 * guess.probability)
        table.add_row(Text(printable(guess.name)), f"{100 * guess.probability:.2f} %", Text(bar, style="cyan"))
    return table
