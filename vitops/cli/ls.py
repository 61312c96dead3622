"""``vitops ls``: what exists here, as declared and as made."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitops.cli.console import emit
from vitops.cli.options import AsJson, File
from vitops.config.load import Loaded, find_root, load, store_home
from vitops.lineage.shared_ledger import open_ledger
from vitops.packaging.text import printable
from vitops.store.shared import shared_objects

if TYPE_CHECKING:
    from rich.console import Console

JSON = dict[str, Any]


def ls(file: File = None, as_json: AsJson = False) -> None:
    """List the datasets and pipelines of pipelines.yaml and the artifacts of the store, newest last."""
    root = find_root(Path.cwd())
    loaded = load(root, file=file)
    document = {
        "datasets": _datasets(loaded),
        "pipelines": _pipelines(loaded),
        "artifacts": artifacts(store_home(root)),
    }
    emit(document, as_json=as_json, render=lambda console: _render(document, console))


def artifacts(home: Path) -> list[JSON]:
    """Every artifact with an intact receipt, once, in the order of its latest one."""
    found: dict[str, JSON] = {}
    for receipt in open_ledger(home, shared_objects()).entries():
        found.pop(receipt.digest, None)
        found[receipt.digest] = {
            "digest": receipt.digest,
            "kind": receipt.ref.kind,
            "pipeline": receipt.pipeline,
            "stage": receipt.stage,
            "made": receipt.predicate.when.started,
            "files": len(receipt.files),
        }
    return list(found.values())


def _datasets(loaded: Loaded) -> list[JSON]:
    return [
        {"name": name, "task": dataset.task, "source": dataset.source.path, "splits": list(dataset.splits)}
        for name, dataset in loaded.datasets.items()
    ]


def _pipelines(loaded: Loaded) -> list[JSON]:
    return [
        {
            "name": name,
            "flow": pipeline.flow,
            "dataset": pipeline.dataset,
            "split": pipeline.split,
            "profiles": list(loaded.profiles(name)),
        }
        for name, pipeline in loaded.every().pipelines.items()
    ]


def _render(document: dict[str, list[JSON]], console: "Console") -> None:
    for title, rows in document.items():
        console.print(title, style="bold")
        if rows:
            console.print(_table(rows))
        else:
            console.print("  none yet; `vitops run PIPELINE` makes them", style="dim")
        console.print()


def _table(rows: list[JSON]) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2))
    for column in rows[0]:
        table.add_column(column, no_wrap=column == "name")
    for row in rows:
        table.add_row(*(_cell(column, value) for column, value in row.items()))
    return table


def _cell(column: str, value: Any) -> str:
    if column == "digest":
        return str(value)[:12]
    return printable(", ".join(value) if isinstance(value, list) else str(value))
