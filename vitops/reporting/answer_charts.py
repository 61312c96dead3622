"""What a model answers: which classes it takes for which, and how often it is right when it is so sure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from vitops.packaging.text import printable
from vitops.reporting.svg import Axis, drawing, element, frame, line, text

MOST_CELLS = 32
"""Rows and columns of a confusion: more classes are shown in ranges of consecutive labels."""
_LEFT, _TOP, _SIDE = 96.0, 12.0, 300.0
_ROOM_FOR_COUNTS = 22.0
_DARKEST = 0.85


def confusion(pairs: Sequence[Sequence[int]], *, classes: Sequence[str], title: str, colour: str) -> Markup:
    """True classes down, answered ones across, in label order; a cell's strength is its share of its row.

    ``pairs``: [true, answered, images] rows.
    """
    per_cell = -(-len(classes) // MOST_CELLS)
    names = [_named(classes, start, per_cell) for start in range(0, len(classes), per_cell)]
    counts: Counter[tuple[int, int]] = Counter()
    for true, answered, images in pairs:
        counts[true // per_cell, answered // per_cell] += images
    parts: list[Markup] = [element("rect", x=_LEFT, y=_TOP, width=_SIDE, height=_SIDE, class_="sheet")]
    parts += _cells(counts, names, colour=colour)
    parts += _row_names(names)
    below = text(
        _LEFT + _SIDE / 2, _TOP + _SIDE + 18, "answered class, in the same order", anchor="middle", css="label"
    )
    right = sum(images for (true, answered), images in counts.items() if true == answered)
    spoken = f"{right} of {counts.total()} images lie on the diagonal of {len(names)} by {len(names)} cells"
    return drawing(_LEFT + _SIDE + 4, _TOP + _SIDE + 26, *parts, below, title=title, description=spoken)


def _cells(counts: Counter[tuple[int, int]], names: Sequence[str], *, colour: str) -> list[Markup]:
    rows: Counter[int] = Counter()
    for (true, _), images in counts.items():
        rows[true] += images
    side = _SIDE / len(names)
    parts: list[Markup] = []
    for (true, answered), images in sorted(counts.items()):
        hint = element("title", f"{names[true]} taken for {names[answered]}: {images} of {rows[true]}")
        x, y, share = _LEFT + side * answered, _TOP + side * true, images / rows[true]
        parts.append(
            element("rect", hint, x=x, y=y, width=side, height=side, fill=colour, fill_opacity=_DARKEST * share)
        )
        if side >= _ROOM_FOR_COUNTS:
            parts.append(text(x + side / 2, y + side / 2 + 4, str(images), anchor="middle", css="value"))
    return parts


def _named(classes: Sequence[str], start: int, count: int) -> str:
    first, last = classes[start], classes[min(start + count, len(classes)) - 1]
    return printable(first) if count == 1 else f"{printable(first)} … {printable(last)}"


def _row_names(names: Sequence[str]) -> list[Markup]:
    side = _SIDE / len(names)
    step = max(1, round(12 / side))
    return [
        text(_LEFT - 6, _TOP + side * (row + 0.5) + 4, _short(names[row]), anchor="end", css="tick", title=names[row])
        for row in range(0, len(names), step)
    ]


def _short(name: str) -> str:
    return name if len(name) <= 13 else f"{name[:12]}…"


def reliability(bins: Sequence[Mapping[str, Any]], *, error: float, title: str, colour: str) -> Markup:
    """Accuracy over confidence, one disc per bin with its share of the images as area; calibrated is the diagonal."""
    x, y = Axis(0.0, 100.0, 58, 336), Axis(0.0, 100.0, 230, 14)
    parts = frame(x, y, x_title="confidence %", y_title="accuracy %")
    parts.append(line(x(0), y(0), x(100), y(100), "level"))
    total = sum(row["images"] for row in bins)
    for row in bins:
        if row["images"]:
            hint = f"{row['images']} images: confidence {row['confidence']:.2f} %, accuracy {row['accuracy']:.2f} %"
            place = {"cx": x(row["confidence"]), "cy": y(row["accuracy"])}
            radius = float(24.0 * (row["images"] / total) ** 0.5)
            parts.append(element("circle", element("title", hint), **place, r=radius, fill=colour, class_="disc"))
            parts.append(element("circle", **place, r=2.5, fill=colour))
    spoken = f"expected calibration error {error:.2f} % over {total} images"
    return drawing(350, 272, *parts, title=title, description=spoken)
