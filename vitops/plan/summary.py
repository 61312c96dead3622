"""The few numbers that a console and the Prefect UI show, read from published artifacts."""

import json
from pathlib import Path
from typing import Any

GROUPS = ("overall", "many", "medium", "few")


def accuracy_table(evaluate: Path) -> list[dict[str, Any]]:
    """One row per model of ``metrics.json``: accuracy of the mean head in percent, and size.

    ``% student`` is its share of the student's multiply-accumulates.
    """
    models = json.loads((evaluate / "metrics.json").read_text())["models"]
    return [
        {"model": name}
        | {group: model["heads"]["mean"][group] for group in GROUPS}
        | {"macs": model["macs"], "% student": 100 * model["macs"] / models["student"]["macs"]}
        | {figure: model[figure] for figure in ("parameters", "bytes")}
        for name, model in models.items()
    ]


def with_latency(rows: list[dict[str, Any]], report: Path) -> list[dict[str, Any]]:
    """The rows with ``latency ms``, the median of the report's ``latency.json``, and ``x student``: times as fast."""
    latency = json.loads((report / "latency.json").read_text())
    medians = {name: model["median_ms"] for name, model in latency["models"].items()}
    ratios = {name: medians["student"] / median for name, median in medians.items()}
    return [row | {"latency ms": medians.get(row["model"]), "x student": ratios.get(row["model"])} for row in rows]
