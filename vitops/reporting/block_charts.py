"""Numbers of a transformer's blocks over its depth: one per head (attention distance) or one per block (rank)."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vitops.reporting.svg import Axis, drawing, element, frame, line, number, polyline, text

_APART = 0.12
_NAME = 110


@dataclass(frozen=True)
class Blocks:
    """One model: for each block its numbers, any count of them."""

    title: str
    colour: str
    values: Sequence[Sequence[float]]


def over_blocks(
    models: Sequence[Blocks], *, title: str, y_title: str, reference: tuple[str, float] | None = None
) -> Markup:
    """A dot per number and a line through the means of the blocks; ``reference`` is a named level, drawn dashed."""
    every = [value for model in models for block in model.values for value in block]
    x = Axis(-0.5, max(len(model.values) for model in models) - 0.5, 64, 540, whole=True)
    y = Axis(0.0, 1.1 * max(*every, reference[1] if reference else 0.0) or 1.0, 250, 34)
    parts = frame(x, y, x_title="block", y_title=y_title)
    if reference:
        parts.append(line(x.start, y(reference[1]), x.end, y(reference[1]), "level"))
        parts.append(text(x.end, y(reference[1]) - 5, reference[0], anchor="end", css="tick"))
    for index, model in enumerate(models):
        shift = _APART * (index - (len(models) - 1) / 2)
        parts.extend(_dots(model, x, y, shift=shift))
        parts.append(element("circle", cx=x.start + _NAME * index + 5, cy=12, r=4, fill=model.colour))
        parts.append(text(x.start + _NAME * index + 14, 16, model.title, css="name"))
    spoken = "; ".join(f"{model.title}: {', '.join(_spoken(block) for block in model.values)}" for model in models)
    return drawing(560, 292, *parts, title=title, description=spoken)


def _dots(model: Blocks, x: Axis, y: Axis, *, shift: float) -> list[Markup]:
    means = [(x(place + shift), y(sum(block) / len(block))) for place, block in enumerate(model.values)]
    parts = [polyline(means, css="thread", stroke=model.colour)]
    for place, block in enumerate(model.values):
        for index, value in enumerate(block):
            which = f", head {index}" if len(block) > 1 else ""
            hint = element("title", f"{model.title}, block {place}{which}: {number(value)}")
            at = {"cx": x(place + shift), "cy": y(value)}
            parts.append(element("circle", hint, **at, r=3.5, fill=model.colour, fill_opacity=0.75))
    return parts


def _spoken(block: Sequence[float]) -> str:
    """Lowest and highest number of a block."""
    low, high = number(min(block)), number(max(block))
    return low if low == high else f"{low} to {high}"
