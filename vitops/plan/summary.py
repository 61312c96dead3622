"""The few numbers that a console and the Prefect UI show, read from published artifacts."""

import json
from pathlib import Path
from typing import Any

GROUPS = ("overall", "many", "medium", "few")


def accuracy_table(evaluate: Path) -> list[dict[str, Any]]:
    """One row per model of ``metrics.json``: accuracy of the mean head in percent, MACs, parameters and bytes."""
    metrics = json.loads((evaluate / "metrics.json").read_text())
    return [
        {"model": name}
        | {group: model["heads"]["mean"][group] for group in GROUPS}
        | {figure: model.get(figure) for figure in ("macs", "parameters", "bytes")}
        for name, model in metrics["models"].items()
    ]


def latency_medians(report: Path) -> dict[str, float]:
    """Median milliseconds per model from the report's ``latency.json``."""
    latency = json.loads((report / "latency.json").read_text())
    return {name: model["median_ms"] for name, model in latency["models"].items()}
