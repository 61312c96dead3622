"""The console of a run: one line per stage, live on a terminal, one line per change elsewhere. Everything on stderr."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from vitops.plan.record import read_record

MARKS = {
    "hit": "[green]hit[/]",
    "executed": "[cyan]executed[/]",
    "failed": "[red]failed[/]",
    "pending": "[dim]-[/]",
    "waiting": "[yellow]waiting for another run that computes it[/]",
}


class Progress:
    """Shows ``run.json`` and ``progress.json`` of a run's folder as they change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, transient=True, refresh_per_second=5)
        self._said: dict[str, str] = {}
        self._since: dict[str, float] = {}

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def tick(self) -> None:
        """Look at the files once and show what changed."""
        record = read_record(self._folder / "run.json")
        if record is None:
            return
        if self._console.is_terminal:
            self._live.update(self._table(record["stages"]))
        else:
            self._lines(record["stages"])

    def _table(self, stages: list[dict[str, Any]]) -> Table:
        table = Table("stage", "status", "seconds", box=None, pad_edge=False)
        for stage in stages:
            status = MARKS.get(stage["status"]) or f"[yellow]{self._detail(stage['name'])}[/]"
            table.add_row(stage["name"], status, self._seconds(stage))
        return table

    def _seconds(self, stage: dict[str, Any]) -> str:
        if stage["status"] == "running":
            since = self._since.setdefault(stage["name"], time.monotonic())
            return f"{time.monotonic() - since:.0f}"
        return "" if stage["seconds"] is None else f"{stage['seconds']:.1f}"

    def _detail(self, name: str) -> str:
        progress = read_record(self._folder / "progress.json")
        if progress is None or progress.get("stage") != name:
            return "running"
        parts = [f"{word} {progress[word]}" for word in ("phase", "epoch", "step") if word in progress]
        return "running " + " ".join(parts)

    def _lines(self, stages: list[dict[str, Any]]) -> None:
        for stage in stages:
            status = stage["status"]
            if status != "pending" and self._said.get(stage["name"]) != status:
                self._said[stage["name"]] = status
                told = _told(stage) if status == "executed" else ""
                self._console.print(f"{stage['name']}: {status}{told}", markup=False, highlight=False)


def _told(stage: dict[str, Any]) -> str:
    """How long a stage took, where it went on, and what the kill before had cost."""
    told, resumed, lost = f" in {stage['seconds']:.1f} s", stage["resumed_from"], stage["work_lost"]
    if resumed:
        told += f", resumed from epoch {resumed['epoch']} step {resumed['step']}"
    return told + (f", {lost['steps']} steps ({lost['seconds']:.1f} s) of work lost" if lost else "")
