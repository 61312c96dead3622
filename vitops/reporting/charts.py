"""The report's plots as SVG: accuracy over latency, accuracy per class, training curves, widths per block."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vitops.packaging.text import printable
from vitops.reporting.svg import Axis, drawing, element, frame, line, number, polyline, spanning, text

COLOURS = {
    "teacher": "var(--teacher)",
    "student": "var(--student)",
    "pruned": "var(--pruned)",
    "prune": "var(--pruned)",
    "int8": "var(--int8)",
}
_OTHER = "var(--other)"
_LINE_HEIGHT = 30
_ROOM_FOR_VALUES = 34
_WIDEST_BAR = 44


@dataclass(frozen=True)
class Point:
    """One model in the accuracy-latency plot: milliseconds, percent, file bytes."""

    name: str
    latency: float
    accuracy: float
    size: int


def accuracy_latency(points: Sequence[Point]) -> Markup:
    """A scatter plot; disc areas are proportional to file sizes, a dashed line joins the steps of compression."""
    x = Axis(0.0, 1.18 * max(p.latency for p in points), 64, 620)
    lowest, highest = spanning([p.accuracy for p in points], margin=0.25)
    y = Axis(lowest, highest, 300, 62)  # room for the names above the highest disc
    places = {p.name: (x(p.latency), y(p.accuracy)) for p in points}
    road = [places[name] for name in ("student", "pruned", "int8") if name in places]
    parts = frame(
        x, y, x_title="latency of one image in ms, 1 thread (lower is better)", y_title="accuracy %", x_grid=True
    )
    parts.append(polyline(road, css="road", stroke="var(--muted)"))
    for point in points:
        colour = COLOURS.get(point.name, _OTHER)
        summary = f"{point.name}: {point.accuracy:.2f} % at {point.latency:.3f} ms, {point.size} bytes"
        cx, cy = places[point.name]
        parts.append(
            element(
                "circle", element("title", summary), cx=cx, cy=cy, r=_radius(point, points), fill=colour, class_="disc"
            )
        )
        parts.append(element("circle", cx=cx, cy=cy, r=3, fill=colour))
    parts.extend(_names(points, places))
    spoken = "; ".join(f"{p.name} {p.accuracy:.2f} % in {p.latency:.3f} ms" for p in points)
    return drawing(640, 350, *parts, title="Accuracy over latency", description=spoken)


def _names(points: Sequence[Point], places: Mapping[str, tuple[float, float]]) -> list[Markup]:
    """Names above the discs, pushed up where two would overlap."""
    parts: list[Markup] = []
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: -places[p.name][1]):
        left, top = places[point.name]
        top -= 20 + _radius(point, points)
        while any(abs(top - other) < _LINE_HEIGHT and abs(left - start) < 130 for start, other in taken):
            top -= 4
        taken.append((left, top))
        parts.append(text(left, top, point.name, anchor="middle", css="name"))
        figures = f"{point.accuracy:.2f} % · {point.latency:.2f} ms"
        parts.append(text(left, top + 14, figures, anchor="middle", css="tick"))
    return parts


def _radius(point: Point, points: Sequence[Point]) -> float:
    largest = max(other.size for other in points)
    return float(22.0 * (point.size / largest) ** 0.5)


@dataclass(frozen=True)
class ClassRow:
    """One row of the per-class chart: a percentage (or None) for each class, in label order."""

    title: str
    colour: str
    values: Sequence[float | None]


def class_bars(
    rows: Sequence[ClassRow],
    *,
    classes: Sequence[str],
    train_counts: Sequence[int],
    title: str = "Accuracy of each class",
) -> Markup:
    """Training images (log scale) above one row of percent bars per model; columns are classes in label order."""
    left, right, height, gap = 156.0, 1080.0, 56.0, 22.0
    slot = (right - left) / len(classes)
    top = 14.0
    parts = _count_row(train_counts, classes, left=left, slot=slot, top=top, height=height)
    for row in rows:
        top += height + gap
        parts.extend(_percent_row(row, classes, left=left, slot=slot, top=top, height=height))
    top += height
    parts.extend(_class_names(classes, left=left, slot=slot, top=top))
    spoken = "; ".join(f"{row.title}: {', '.join(_percent(value) for value in row.values)}" for row in rows)
    return drawing(right, top + 78, *parts, title=title, description=spoken)


def _count_row(
    counts: Sequence[int], classes: Sequence[str], *, left: float, slot: float, top: float, height: float
) -> list[Markup]:
    y = Axis(0.5, max(max(counts), 1) * 1.2, top + height, top, log=True)
    parts = _row_frame("training images", left, left + slot * len(classes), y, ticks=y.ticks())
    for label, count in enumerate(counts):
        hint = f"{printable(classes[label])}: {count} training images"
        shown = number(count) if slot >= _ROOM_FOR_VALUES else ""
        value = max(count, 0.5)  # a log axis has no zero
        parts.extend(_bar(left + slot * label, slot, y, value, fill="var(--counts)", hint=hint, shown=shown))
    return parts


def _percent_row(
    row: ClassRow, classes: Sequence[str], *, left: float, slot: float, top: float, height: float
) -> list[Markup]:
    y = Axis(0.0, 100.0, top + height, top)
    parts = _row_frame(row.title, left, left + slot * len(classes), y, ticks=[0.0, 50.0, 100.0])
    for label, value in enumerate(row.values):
        if value is not None:
            hint = f"{row.title}, {printable(classes[label])}: {value:.2f} %"
            shown = f"{value:.0f}" if slot >= _ROOM_FOR_VALUES else ""
            parts.extend(_bar(left + slot * label, slot, y, value, fill=row.colour, hint=hint, shown=shown))
    return parts


def _row_frame(title: str, left: float, right: float, y: Axis, *, ticks: Sequence[float]) -> list[Markup]:
    parts = [text(0, (y.start + y.end) / 2 + 4, title, css="name")]
    for value in ticks:
        parts.append(line(left, y(value), right, y(value), "grid"))
        parts.append(text(left - 6, y(value) + 4, number(value), anchor="end", css="tick"))
    return parts


def _bar(x: float, slot: float, y: Axis, value: float, *, fill: str, hint: str, shown: str) -> list[Markup]:
    width = min(max(slot * 0.7, 0.6), _WIDEST_BAR)
    top = y(value)
    bar = element(
        "rect",
        element("title", hint),
        x=x + (slot - width) / 2,
        y=top,
        width=width,
        height=max(y.start - top, 0.8),
        rx=min(3.0, width / 4),
        fill=fill,
    )
    label = text(x + slot / 2, top - 4, shown, anchor="middle", css="value")
    return [bar, label] if shown else [bar]


def _class_names(classes: Sequence[str], *, left: float, slot: float, top: float) -> list[Markup]:
    """Slanted names; with many classes only as many as fit, evenly spread."""
    step = max(1, math.ceil(24 / slot))
    parts: list[Markup] = []
    for label in range(0, len(classes), step):
        x, y = left + slot * (label + 0.5) + 4, top + 14
        name = printable(classes[label])
        shown = name if len(name) <= 13 else f"{name[:12]}…"
        parts.append(
            element("text", shown, x=x, y=y, text_anchor="end", class_="tick", transform=f"rotate(-38 {x:.2f} {y:.2f})")
        )
    return parts


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} %"


@dataclass(frozen=True)
class Curve:
    """One line of a training chart: ``values`` per epoch, from epoch 0."""

    title: str
    values: Sequence[float]


def curves(curve: Curve, *, colour: str) -> Markup:
    """One quantity over the epochs of one training stage."""
    x = Axis(0.0, max(len(curve.values) - 1, 1), 58, 336, whole=True)
    y = Axis(*spanning(curve.values), 150, 14)
    points = [(x(epoch), y(value)) for epoch, value in enumerate(curve.values)]
    parts = frame(x, y, x_title="epoch", y_title="")
    parts.append(polyline(points, css="curve", stroke=colour))
    last = points[-1]
    hint = f"last epoch: {curve.values[-1]:.6g}"
    parts.append(element("circle", element("title", hint), cx=last[0], cy=last[1], r=4, fill=colour))
    spoken = f"from {curve.values[0]:.6g} to {curve.values[-1]:.6g} in {len(curve.values)} epochs"
    return drawing(350, 192, *parts, title=curve.title, description=spoken)


STRUCTURES = {"h": "heads", "qk": "query/key width of a head", "v": "value width of a head", "mlp": "hidden width"}
"""Key of dims.json -> what it counts, for each block."""


def block_widths(before: Sequence[int], after: Sequence[int], *, title: str) -> Markup:
    """Widths of one structure in each block: an outline before pruning, a filled bar after."""
    x = Axis(-0.5, len(before) - 0.5, 46, 258)
    y = Axis(0.0, max(*before, *after) * 1.18, 124, 12)
    slot = (x.end - x.start) / len(before)
    parts: list[Markup] = []
    for value in y.ticks(3):
        parts.append(line(x.start, y(value), x.end, y(value), "grid"))
        parts.append(text(x.start - 6, y(value) + 4, number(value), anchor="end", css="tick"))
    for block, (dense, kept) in enumerate(zip(before, after, strict=True)):
        parts.extend(_before_after(x(block), slot, y, dense=dense, kept=kept, block=block))
    parts.append(text((x.start + x.end) / 2, 158, "block", anchor="middle", css="label"))
    spoken = ", ".join(f"block {i}: {b} to {a}" for i, (b, a) in enumerate(zip(before, after, strict=True)))
    return drawing(266, 164, *parts, title=title, description=spoken)


def _before_after(x: float, slot: float, y: Axis, *, dense: int, kept: int, block: int) -> list[Markup]:
    width = slot * 0.66
    hint = element("title", f"block {block}: {dense} before, {kept} after")
    shape = {"x": x - width / 2, "width": width, "rx": min(2.5, width / 4)}
    outline = element("rect", hint, y=y(dense), height=y.start - y(dense), class_="dense", **shape)
    bar = element("rect", hint, y=y(kept), height=y.start - y(kept), fill="var(--pruned)", **shape)
    parts = [outline, bar, text(x, y.start + 15, str(block), anchor="middle", css="tick")]
    return [*parts, text(x, y(dense) - 4, str(kept), anchor="middle", css="tick")] if slot >= 24 else parts
