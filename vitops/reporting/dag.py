"""The run as a picture: one line per stage in order of execution, arcs for its inputs, and what happened to it."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from vitops.packaging.text import printable
from vitops.reporting.svg import drawing, element, text

_ROW = 34.0
_TOP = 26.0
_LEFT = 150.0
_STATUS = {"hit": "var(--good)", "executed": "var(--student)", "running": "var(--teacher)", "failed": "var(--bad)"}


def dag(stages: Sequence[Mapping[str, Any]]) -> Markup:
    """``stages`` of a run record: name, kind, exactness, status, seconds, digest, resumed_from, inputs (role -> stage).

    Inputs that are no stage of this run (pinned artifacts) have no arc.
    """
    rows = {stage["name"]: _TOP + _ROW * index for index, stage in enumerate(stages)}
    parts: list[Markup] = []
    for stage in stages:
        for upstream in sorted(set(stage["inputs"].values()) & rows.keys()):
            parts.append(_arc(rows[upstream], rows[stage["name"]], hint=f"{upstream} → {stage['name']}"))
    for stage in stages:
        parts.extend(_stage(stage, rows[stage["name"]]))
    spoken = "; ".join(f"{stage['name']} {stage['status']}" for stage in stages)
    return drawing(900, _TOP + _ROW * len(stages), *parts, title="Stages of this run", description=spoken)


def _arc(start: float, end: float, *, hint: str) -> Markup:
    """A straight line to the next row, else a bow to the left that is wider the farther it reaches."""
    reach = min(14 + (end - start) * 0.36, _LEFT - 12)
    direct = end - start <= _ROW + 1
    path = (
        f"M{_LEFT} {start} L{_LEFT} {end}"
        if direct
        else (
            f"M{_LEFT} {start} C{_LEFT - reach:.2f} {start + 10:.2f} {_LEFT - reach:.2f} {end - 10:.2f} {_LEFT} {end}"
        )
    )
    return element("path", element("title", hint), d=path, class_="edge" if direct else "edge far")


def _stage(stage: Mapping[str, Any], y: float) -> list[Markup]:
    status = str(stage["status"])
    colour = _STATUS.get(status, "var(--muted)")
    seconds = stage.get("seconds")
    took = f"{seconds:.1f} s" if seconds is not None and status != "hit" else ""
    resumed = stage.get("resumed_from")
    note = f"resumed at epoch {resumed['epoch']}, step {resumed['step']}" if resumed else ""
    return [
        element("circle", cx=_LEFT, cy=y, r=6.5, fill=colour, class_="node"),
        text(_LEFT + 20, y + 5, printable(str(stage["name"])), css="name"),
        text(_LEFT + 130, y + 4, f"{stage['kind']} · {stage['exactness']}", css="tick"),
        element("rect", x=_LEFT + 258, y=y - 10, width=76, height=20, rx=10, fill=colour, class_="pill"),
        text(_LEFT + 296, y + 4, status, anchor="middle", css="status"),
        text(_LEFT + 410, y + 4, took, anchor="end", css="tick"),
        text(_LEFT + 430, y + 4, str(stage.get("digest") or "")[:16], css="code"),
        text(_LEFT + 566, y + 4, note, css="tick"),
    ]
