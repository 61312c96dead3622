"""Just enough SVG for the report's charts: escaped elements, axes with round ticks, and a plot frame.

Everything is drawn with the page's CSS variables, so one drawing serves light and dark. Text is always escaped: class
names come from data. Coordinates are viewBox units, rounded to 2 decimals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Attribute = str | int | float


def element(tag: str, *children: str, **attributes: Attribute) -> Markup:
    """One element. Plain text children are escaped, markup is kept; ``stroke_width`` becomes ``stroke-width``."""
    pairs = "".join(f' {_name(key)}="{escape(_value(value))}"' for key, value in attributes.items())
    inner = "".join(str(escape(child)) for child in children)
    return Markup(f"<{tag}{pairs}>{inner}</{tag}>" if inner else f"<{tag}{pairs}/>")


def drawing(width: float, height: float, *children: Markup, title: str, description: str) -> Markup:
    """A whole picture with an accessible name; it scales down with the page but never up."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *children,
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        role="img",
        aria_label=title,
        style=f"width:100%;max-width:{_value(width)}px;height:auto",
    )


def text(x: float, y: float, content: str, *, anchor: str = "start", css: str = "", title: str = "") -> Markup:
    """A line of text; ``title`` is what a pointer shows."""
    children = (element("title", title), escape(content)) if title else (escape(content),)
    return element("text", *children, x=x, y=y, text_anchor=anchor, class_=css)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)


def polyline(points: Sequence[tuple[float, float]], *, css: str, stroke: str) -> Markup:
    """A line through ``points``."""
    joined = " ".join(f"{_value(x)},{_value(y)}" for x, y in points)
    return element("polyline", points=joined, class_=css, stroke=stroke, fill="none")


@dataclass(frozen=True)
class Axis:
    """Values [low, high] on pixels [start, end] (which may run backwards), linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False
    """Values count something (epochs, blocks): no tick lies between two of them."""

    def __call__(self, value: float) -> float:
        """Pixel of ``value``."""
        low, high, at = (
            (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the axis: multiples of 1, 2 or 5 times a power of ten, or the powers on a log axis."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        step = _round_step(max((self.high - self.low) / about, 1.0 if self.whole else 0.0))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def spanning(values: Sequence[float], *, margin: float = 0.08, floor: float | None = None) -> tuple[float, float]:
    """A range around ``values`` with a margin, at least 1e-9 wide, not below ``floor``."""
    low, high = min(values), max(values)
    pad = (high - low) * margin or max(abs(high) * margin, 1e-9)
    return (low - pad if floor is None else max(floor, low - pad)), high + pad


def frame(x: Axis, y: Axis, *, x_title: str, y_title: str, x_grid: bool = False) -> list[Markup]:
    """Grid lines, tick labels and axis titles of a plot whose axes are ``x`` and ``y``."""
    parts: list[Markup] = []
    for value in y.ticks():
        parts.append(line(x.start, y(value), x.end, y(value), "grid"))
        parts.append(text(x.start - 8, y(value) + 4, number(value), anchor="end", css="tick"))
    for value in x.ticks(6):
        if x_grid:
            parts.append(line(x(value), y.start, x(value), y.end, "grid"))
        parts.append(text(x(value), y.start + 18, number(value), anchor="middle", css="tick"))
    parts.append(line(x.start, y.start, x.end, y.start, "axis"))
    parts.append(text((x.start + x.end) / 2, y.start + 38, x_title, anchor="middle", css="label"))
    middle = (y.start + y.end) / 2
    left = x.start - 44
    turned = element(
        "text",
        y_title,
        x=left,
        y=middle,
        class_="label",
        text_anchor="middle",
        transform=f"rotate(-90 {_value(left)} {_value(middle)})",
    )
    return [*parts, turned]


def number(value: float) -> str:
    """A tick label: no trailing zeros, thousands as k and M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:.6g}"


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def _name(key: str) -> str:
    return key if key == "viewBox" else key.rstrip("_").replace("_", "-")


def _value(value: Attribute) -> str:
    return f"{round(value, 2):g}" if isinstance(value, float) else str(value)
