"""report.html: the documents of a pipeline's artifacts as one page. Pure: everything it shows is handed in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from vitops.packaging.text import printable
from vitops.reporting import inside
from vitops.reporting.charts import (
    COLOURS,
    STRUCTURES,
    ClassRow,
    Curve,
    Point,
    accuracy_latency,
    block_widths,
    class_bars,
    curves,
)
from vitops.reporting.dag import dag
from vitops.reporting.lineage_tree import lineage_tree
from vitops.reporting.page_template import PAGE, STYLE

JSON = dict[str, Any]

TITLES = {
    "teacher": "teacher",
    "student": "student",
    "pruned": "pruned (torch)",
    "onnx": "pruned (ONNX fp32)",
    "int8": "pruned (ONNX int8)",
}
_LATENCY_OF = {"teacher": "teacher", "student": "student", "onnx": "pruned", "int8": "int8"}
"""Name in metrics.json -> name in latency.json: what is timed as ``pruned`` is the exported fp32 file."""
_ACCURACY_OF = {latency: metric for metric, latency in _LATENCY_OF.items()}
_LIGHTER = "color-mix(in srgb, var(--student) 60%, var(--card))"
_COLUMNS = ("overall", "top5", "many", "medium", "few", "head", "mid", "tail")


@dataclass(frozen=True)
class ReportData:
    """What the page shows. ``digests``: input role -> SHA-256; ``run``: a run record, or None."""

    metrics: JSON
    latency: JSON
    histories: Mapping[str, Sequence[JSON]]
    """Training name -> rows of its history.json, one per epoch."""
    before: JSON
    after: JSON
    """Widths per block (dims) before and after pruning."""
    digests: Mapping[str, str]
    run: JSON | None = None
    pipeline: str | None = None


def page(data: ReportData) -> str:
    """The HTML document. Text from data is escaped, invisible characters in it become visible."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.2f}"
    metrics = data.metrics
    rows = _class_rows(metrics)
    names = [printable(name) for name in metrics["classes"]]
    return environment.from_string(PAGE).render(
        style=Markup(STYLE),
        title=printable(f"{metrics['dataset']} / {metrics['split']}"),
        pipeline=data.pipeline or (data.run or {}).get("pipeline"),
        package=data.digests["package"],
        metrics=metrics,
        latency=data.latency,
        tiles=_tiles(data),
        scatter=accuracy_latency(_points(data)),
        latencies=_latencies(data.latency),
        columns=[name for name in _COLUMNS if name in metrics["models"]["int8"]["heads"]["mean"]],
        models=_models(data),
        heads=_heads(metrics),
        class_names=names,
        class_rows=rows,
        classes_chart=class_bars(rows, classes=names, train_counts=metrics["train_counts"]),
        diversity=inside.diversity(metrics),
        agreement=inside.agreement(metrics, classes=names),
        answers=inside.answers(metrics, classes=names),
        blocks=inside.blocks(metrics),
        training=[_training(name, history) for name, history in data.histories.items() if history],
        before=data.before,
        after=data.after,
        widths=_widths(data),
        run=dag(data.run["stages"]) if data.run else None,
        lineage=lineage_tree(data.digests, data.run),
    )


def _tiles(data: ReportData) -> list[dict[str, str]]:
    models, timed = data.metrics["models"], data.latency["models"]
    int8, student, onnx = models["int8"], models["student"], models["onnx"]
    accuracy = {name: models[name]["heads"]["mean"]["overall"] for name in ("int8", "student", "teacher")}
    median = {name: timed[name]["median_ms"] for name in ("student", "pruned", "int8")}
    return [
        {
            "value": f"{accuracy['int8']:.2f} %",
            "what": "accuracy of the int8 model",
            "beside": f"student {accuracy['student']:.2f} %, teacher {accuracy['teacher']:.2f} %",
        },
        {
            "value": f"{median['student'] / median['int8']:.2f}×",
            "what": "the speed of the student",
            "beside": f"{median['int8']:.3f} ms; pruning {median['student'] / median['pruned']:.2f}×, "
            f"int8 {median['pruned'] / median['int8']:.2f}×",
        },
        {
            "value": f"{100 * int8['macs'] / student['macs']:.1f} %",
            "what": "of the student's MACs",
            "beside": f"{int8['macs']:,} of {student['macs']:,}",
        },
        {
            "value": f"{100 * int8['bytes'] / onnx['bytes']:.1f} %",
            "what": "of the fp32 file's bytes",
            "beside": f"{int8['bytes']:,} of {onnx['bytes']:,}",
        },
    ]


def _points(data: ReportData) -> list[Point]:
    return [
        Point(
            name=name,
            latency=timed["median_ms"],
            accuracy=data.metrics["models"][_ACCURACY_OF[name]]["heads"]["mean"]["overall"],
            size=timed["bytes"],
        )
        for name, timed in data.latency["models"].items()
    ]


def _latencies(latency: JSON) -> list[JSON]:
    student = latency["models"]["student"]["median_ms"]
    return [
        {"name": name, "colour": colour(name), "speedup": student / timed["median_ms"], **timed}
        for name, timed in latency["models"].items()
    ]


def _models(data: ReportData) -> list[JSON]:
    timed = data.latency["models"]
    return [
        {
            **entry,
            "title": TITLES[name],
            "colour": colour("pruned" if name == "onnx" else name),
            "score": entry["heads"]["mean"],
            "latency": f"{timed[_LATENCY_OF[name]]['median_ms']:.3f}" if name in _LATENCY_OF else "–",
        }
        for name, entry in _in_order(data.metrics)
    ]


def _heads(metrics: JSON) -> list[JSON]:
    return [
        {"title": TITLES[name], "head": head.upper() if head != "mean" else "mean", "score": entry["heads"][head]}
        for name, entry in _in_order(metrics)
        for head in ("cls", "dist", "mean")
        if len(entry["heads"]) > 1 and head in entry["heads"]
    ]


def _class_rows(metrics: JSON) -> list[ClassRow]:
    """The mean head of each model but the fp32 export (it equals the pruned one), and both experts of the student."""
    rows: list[ClassRow] = []
    for name, entry in _in_order(metrics):
        if name == "onnx":
            continue
        rows.append(ClassRow(name, colour(name), entry["heads"]["mean"]["per_class"]))
        for head in ("cls", "dist") if name == "student" else ():
            if head in entry["heads"]:
                rows.append(ClassRow(f"{name} {head.upper()}", _LIGHTER, entry["heads"][head]["per_class"]))
    return rows


def _training(name: str, history: Sequence[JSON]) -> JSON:
    columns = [key for key in history[0] if key != "epoch" and all(_is_number(row.get(key)) for row in history)]
    charts = [
        {"title": key, "picture": curves(Curve(f"{name}: {key}", [row[key] for row in history]), colour=colour(name))}
        for key in columns
    ]
    rows = [[f"{row[key]:.6g}" for key in columns] for row in history]
    return {
        "name": name,
        "colour": colour(name),
        "epochs": len(history),
        "charts": charts,
        "columns": columns,
        "rows": rows,
    }


def _widths(data: ReportData) -> list[JSON]:
    return [
        {
            "title": title,
            "before": data.before[key],
            "after": data.after[key],
            "picture": block_widths(data.before[key], data.after[key], title=title),
        }
        for key, title in STRUCTURES.items()
    ]


def _in_order(metrics: JSON) -> list[tuple[str, JSON]]:
    return [(name, metrics["models"][name]) for name in TITLES if name in metrics["models"]]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def colour(name: str) -> str:
    """The CSS colour of a model or training."""
    return COLOURS.get(name, "var(--other)")
