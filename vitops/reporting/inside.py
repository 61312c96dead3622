"""What the report shows of metrics.json beyond accuracy: experts, agreement, confusion, calibration, blocks."""

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from vitops.reporting.answer_charts import confusion, reliability
from vitops.reporting.block_charts import Blocks, over_blocks
from vitops.reporting.charts import COLOURS, ClassRow, Curve, class_bars, curves

JSON = dict[str, Any]

_LOOKED_INTO = ("teacher", "student", "pruned")
_ANSWERING = ("teacher", "student", "int8")
"""Models whose answers are drawn: where the pipeline begins, the student of it, and what is deployed."""
_EXPERTS = ("cls", "dist")


def diversity(metrics: JSON) -> list[JSON]:
    """1 - cos(CLS, DIST) over the epochs of each distilled training, and on test images."""
    return [
        {
            "name": name,
            "test": entry["analysis"].get("expert_diversity"),
            "picture": curves(
                Curve(f"{name}: expert diversity", entry["analysis"]["expert_diversity_by_epoch"]),
                colour=COLOURS[name],
            ),
        }
        for name, entry in _named(metrics, _LOOKED_INTO)
        if "expert_diversity_by_epoch" in entry["analysis"]
    ]


def agreement(metrics: JSON, *, classes: Sequence[str]) -> Markup | None:
    """Per class, how often each head of the student and the deployed model name what the teacher names."""
    rows = [
        ClassRow(title, COLOURS[name], entry["heads"][head]["agreement"]["per_class"])
        for name, entry in _named(metrics, ("student", "int8"))
        for head, title in _heads(name, entry)
        if "agreement" in entry["heads"][head]
    ]
    if not rows:
        return None
    return class_bars(
        rows, classes=classes, train_counts=metrics["train_counts"], title="Agreement with the teacher by class"
    )


def answers(metrics: JSON, *, classes: Sequence[str]) -> list[JSON]:
    """A confusion and a reliability diagram for each head of the models in ``_ANSWERING``."""
    return [
        {
            "title": title,
            "ece": (found := entry["heads"][head])["ece"],
            "confusion": confusion(found["confusion"], classes=classes, title=f"{title}: confusion", colour=colour),
            "reliability": reliability(
                found["calibration"], error=found["ece"], title=f"{title}: reliability", colour=colour
            ),
        }
        for name, entry in _named(metrics, _ANSWERING)
        for colour in [COLOURS[name]]
        for head, title in _heads(name, entry)
    ]


def blocks(metrics: JSON) -> JSON:
    """``charts`` of attention distance and feature rank, and a sentence for each number that a model has not."""
    looked = [(name, entry["analysis"]) for name, entry in _named(metrics, _LOOKED_INTO)]
    seen = [(name, found) for name, found in looked if "skipped" not in found]
    ranked = [(name, found) for name, found in seen if "skipped" not in found["feature_rank"]]
    missing = [f"{name}: {found['skipped']}" for name, found in looked if "skipped" in found]
    missing += [f"{name}: {rank['skipped']}" for name, found in seen if "skipped" in (rank := found["feature_rank"])]
    return {"charts": [*_distance(seen), *_rank(ranked)], "missing": missing}


def _distance(seen: Sequence[tuple[str, JSON]]) -> list[JSON]:
    if not seen:
        return []
    models = _models(seen, lambda found: found["attention_distance"]["blocks"])
    picture = over_blocks(
        models,
        title="Attention distance of each head",
        y_title="pixels",
        reference=("all patches alike", seen[-1][1]["attention_distance"]["uniform"]),
    )
    return [{"title": "Attention distance of each head (dots) and their mean, in pixels", "picture": picture}]


def _rank(seen: Sequence[tuple[str, JSON]]) -> list[JSON]:
    if not seen:
        return []
    models = _models(seen, lambda found: [[rank] for rank in found["feature_rank"]["blocks"]])
    told = ", ".join(
        f"{name}: {found['feature_rank']['token'].upper()}, width {found['feature_rank']['width']}, "
        f"{found['images']} images"
        for name, found in seen
    )
    picture = over_blocks(models, title="Rank of the features of each block", y_title="directions for 99 %")
    return [{"title": f"Directions that hold 99 % of the features' variance ({told})", "picture": picture}]


def _models(seen: Sequence[tuple[str, JSON]], values: Callable[[JSON], Sequence[Sequence[float]]]) -> list[Blocks]:
    return [Blocks(name, COLOURS[name], values(found)) for name, found in seen]


def _named(metrics: JSON, names: Sequence[str]) -> list[tuple[str, JSON]]:
    return [(name, metrics["models"][name]) for name in names if name in metrics["models"]]


def _heads(name: str, entry: JSON) -> list[tuple[str, str]]:
    """Head and title: both experts of the student, else the mean head."""
    experts = [head for head in _EXPERTS if name == "student" and head in entry["heads"]]
    return [(head, f"{name} {head.upper()}") for head in experts] or [("mean", name)]
