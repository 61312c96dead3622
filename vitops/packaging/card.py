"""card.md: what a package is, with every number traced to the artifact it was read from."""

from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, StrictUndefined

from vitops.packaging.card_template import CARD
from vitops.packaging.preprocess import Preprocess
from vitops.packaging.text import markdown

_TITLES = {
    "int8": "`model.int8.onnx`",
    "onnx": "`model.onnx`",
    "pruned": "`model.safetensors`",
    "student": "unpruned student",
    "teacher": "teacher",
}
_SOURCES = {"int8": "quantize", "onnx": "export", "pruned": "prune", "student": "student", "teacher": "teacher"}
_COLUMNS = ("overall", "top5", "many", "medium", "few", "head", "mid", "tail")


@dataclass(frozen=True)
class CardFacts:
    """What the card tells: documents of the input artifacts and ``digests``, input role -> SHA-256."""

    metrics: dict[str, Any]
    parity: dict[str, Any]
    quantization: dict[str, Any]
    preprocess: Preprocess
    input_name: str
    digests: dict[str, str]
    pipeline: str | None = None


def card(facts: CardFacts) -> str:
    """The Markdown text: a pure function of ``facts``."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters |= {"md": markdown, "percent": _percent, "significant": _significant}
    metrics = facts.metrics
    columns = [name for name in _COLUMNS if name in metrics["models"]["int8"]["heads"]["mean"]]
    return environment.from_string(CARD).render(
        metrics=metrics,
        dataset=metrics["dataset"],
        split=metrics["split"],
        classes=metrics["classes"],
        train_counts=metrics["train_counts"],
        per_class=metrics["models"]["int8"]["heads"]["mean"]["per_class"],
        columns=columns,
        rows=_rows(metrics, columns),
        macs_share=_share(metrics, "macs", "pruned", "student"),
        bytes_share=_share(metrics, "bytes", "int8", "onnx"),
        parity=facts.parity,
        quantization=facts.quantization,
        preprocess=facts.preprocess,
        input_name=facts.input_name,
        digests=facts.digests,
        artifacts=_artifacts(facts),
        pipeline=facts.pipeline,
    )


def _rows(metrics: dict[str, Any], columns: list[str]) -> list[dict[str, Any]]:
    return [
        {
            **{name: entry[name] for name in ("parameters", "macs", "bytes")},
            "title": title,
            "source": f"{_SOURCES[name]}@{entry['artifact'][:12]}",
            "percentages": [_percent(entry["heads"]["mean"][column]) for column in columns],
        }
        for name, title in _TITLES.items()
        if (entry := metrics["models"].get(name)) is not None
    ]


def _artifacts(facts: CardFacts) -> list[tuple[str, str]]:
    """Every artifact that the card names, in order of the stage names."""
    of_models = {_SOURCES[name]: entry["artifact"] for name, entry in facts.metrics["models"].items()}
    return sorted((of_models | facts.digests).items())


def _share(metrics: dict[str, Any], what: str, part: str, whole: str) -> str:
    models = metrics["models"]
    return f"{100 * models[part][what] / models[whole][what]:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _significant(value: float) -> str:
    return f"{value:.3g}"
