"""Tables that several verbs print."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitops.packaging.text import printable

if TYPE_CHECKING:
    from rich.table import Table

SHORT = 12
"""Digits of a digest that a table shows."""


def stage_table(stages: Sequence[dict[str, Any]], columns: Sequence[str]) -> "Table":
    """One row per stage with these fields; digests are cut to their first digits."""
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column("stage" if column == "name" else column)
    for stage in stages:
        table.add_row(*(_cell(column, stage[column]) for column in columns))
    return table


def figure_table(rows: Sequence[dict[str, Any]]) -> "Table":
    """One row per model; numbers right-aligned, nothing shown as a dash."""
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        table.add_row(*("-" if value is None else _figure(value) for value in row.values()))
    return table


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column in {"digest", "recorded", "found"}:
        return str(value)[:SHORT]
    if column == "seconds":
        return f"{value:.1f}"
    if column == "resumed_from":
        return f"epoch {value['epoch']} step {value['step']}"
    if column == "work_lost":
        return f"{value['steps']} steps, {value['seconds']:.1f} s"
    return printable(str(value))


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else printable(str(value))
