"""The ``report`` stage: latency.json and report.html. Measured: recorded by digest, never compared."""

import json
from pathlib import Path
from typing import Any

from vitops.config.pipelines import Report
from vitops.data.loader import open_split
from vitops.reporting.latency import latency
from vitops.reporting.page import ReportData, page
from vitops.store.canonical import write_json
from vitops.store.job import Job, Outcome

_TRAININGS = ("teacher", "student", "prune")


def report(job: Job) -> Outcome:
    """Measure the latency of teacher, student, pruned and int8, then draw the page. ``inputs["run"]`` is optional."""
    config = Report.model_validate(job.parameters["config"])
    job.report(measuring="latency")
    timed = _latency(job, runs=config.latency_runs)
    write_json(job.out / "latency.json", timed)
    dims = _json(job.inputs["prune"] / "dims.json")
    data = ReportData(
        metrics=_json(job.inputs["evaluate"] / "metrics.json"),
        latency=timed,
        histories={role: _history(job.inputs[role] / "history.json") for role in _TRAININGS},
        before=dims["before"],
        after=dims["after"],
        digests=job.digests,
        run=_run_record(job),
        pipeline=job.parameters.get("pipeline"),
    )
    (job.out / "report.html").write_text(page(data), encoding="utf-8")
    medians = {name: entry["median_ms"] for name, entry in timed["models"].items()}
    speedups = {name: round(medians["student"] / value, 3) for name, value in medians.items()}
    return Outcome(facts={"median_ms": medians, "times_faster_than_student": speedups})


def _latency(job: Job, *, runs: int) -> dict[str, Any]:
    roles = {"teacher": "teacher", "student": "student", "pruned": "export", "int8": "quantize"}
    return latency(
        {name: job.inputs[name] for name in ("teacher", "student")},
        {"pruned": job.inputs["export"] / "model.onnx", "int8": job.inputs["quantize"] / "model.int8.onnx"},
        digests={name: job.digests[role] for name, role in roles.items()},
        kind=open_split(job.inputs["split"]).kind,
        opset=_json(job.inputs["export"] / "parity.json")["opset"],
        runs=runs,
    )


def _run_record(job: Job) -> dict[str, Any] | None:
    """The run record as it stands, when the runner hands one in (the file, or the folder that holds it)."""
    given = job.inputs.get("run")
    if given is None:
        return None
    return _json(given / "run.json" if given.is_dir() else given)


def _history(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_bytes())
    return rows


def _json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document
