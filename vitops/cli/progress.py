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

_PLACE = ("phase", "epoch", "step")


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
        progress = self._progress(name)
        places = (f"{word} {progress[word]}" for word in _PLACE if word in progress)
        return " ".join(["running", *places, *_remembered(progress)])

    def _progress(self, name: str) -> dict[str, Any]:
        """What the stage reports; nothing if it does not."""
        progress = read_record(self._folder / "progress.json") or {}
        return progress if progress.get("stage") == name else {}

    def _lines(self, stages: list[dict[str, Any]]) -> None:
        for stage in stages:
            status = stage["status"]
            if status == "running":
                self._say(stage["name"], f"running{_resumed(self._progress(stage['name']))}")
            elif status != "pending":
                seconds = f" in {stage['seconds']:.1f} s" if status == "executed" else ""
                self._say(stage["name"], " ".join([f"{status}{seconds}{_resumed(stage)}", *_remembered(stage)]))

    def _say(self, stage: str, sentence: str) -> None:
        if self._said.get(stage) != sentence:
            self._said[stage] = sentence
            self._console.print(f"{stage}: {sentence}", markup=False, highlight=False)


def _remembered(told: dict[str, Any]) -> list[str]:
    """How often a teacher's cache had the answer."""
    return [
        f"({role}'s cache: {cache['hits']} of {cache['asked']} hits)"
        for role, cache in told.get("teacher_cache", {}).items()
    ]


def _resumed(told: dict[str, Any]) -> str:
    """Where a stage went on, and what the kill before had cost."""
    resumed, lost = told.get("resumed_from"), told.get("work_lost")
    words = f", resumed from epoch {resumed['epoch']} step {resumed['step']}" if resumed else ""
    return words + (f", {lost['steps']} steps ({lost['seconds']:.1f} s) of work lost" if lost else "")
