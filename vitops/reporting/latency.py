"""Latency of ONNX files: one image, one thread, medians of interleaved runs.

Interleaved and in a rotating order, so that a busy moment of the machine or a warm cache falls on every model alike and
the ratios between them mean something even where the milliseconds drift.
"""

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from vitops.compression.export import to_onnx, write
from vitops.config.training import Preprocessing
from vitops.data.kinds import TaskKind
from vitops.errors import VitopsError
from vitops.evaluation.onnx_session import session
from vitops.models import load

WARM_UP = 10
"""Untimed runs of each model before the first timed one."""


@dataclass(frozen=True)
class Timed:
    """An ONNX file to time, and the digest of the artifact it belongs to."""

    path: Path
    artifact: str


def measure(models: Mapping[str, Timed], *, runs: int) -> dict[str, Any]:
    """The latency.json document: median, 90th percentile and minimum in milliseconds of ``runs`` runs per model."""
    calls = {name: _call(timed) for name, timed in models.items()}
    found = interleaved(calls, runs=runs)
    return {
        "runs": runs,
        "warm_up": WARM_UP,
        "batch": 1,
        "threads": 1,
        "cpu": cpu_model(),
        "onnxruntime": ort.__version__,
        "models": {
            name: {**summary(found[name]), "artifact": timed.artifact, "bytes": timed.path.stat().st_size}
            for name, timed in models.items()
        },
    }


def interleaved(calls: Mapping[str, Callable[[], object]], *, runs: int) -> dict[str, list[float]]:
    """Milliseconds of ``runs`` calls of each; every round calls all of them, starting with another one each time."""
    names = list(calls)
    for name in names * WARM_UP:
        calls[name]()
    found: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(runs):
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter_ns()
            calls[name]()
            found[name].append((time.perf_counter_ns() - start) / 1e6)
    return found


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    """``median_ms``, ``p90_ms`` (nearest rank) and ``min_ms``, rounded to a microsecond's tenth."""
    ordered = sorted(milliseconds)
    p90 = ordered[-(-9 * len(ordered) // 10) - 1]
    values = {"median_ms": statistics.median(ordered), "p90_ms": p90, "min_ms": ordered[0]}
    return {name: round(value, 4) for name, value in values.items()}


def export_for_timing(artifact: Path, path: Path, *, kind: TaskKind, opset: int) -> None:
    """Write a torch artifact as ONNX to ``path``: ONNX Runtime is the common yardstick."""
    model, spec = load(artifact)
    inputs = kind.export_inputs(Preprocessing.model_validate(spec.preprocessing))
    write(to_onnx(model, inputs=inputs, opset=opset), path)


def latency(
    torch_artifacts: Mapping[str, Path],
    onnx_files: Mapping[str, Path],
    *,
    digests: Mapping[str, str],
    kind: TaskKind,
    opset: int,
    runs: int,
) -> dict[str, Any]:
    """``measure`` of torch artifacts (exported aside) and ONNX files together; all mappings are by model name."""
    with tempfile.TemporaryDirectory() as folder:
        models: dict[str, Timed] = {}
        for name, artifact in torch_artifacts.items():
            path = Path(folder, f"{name}.onnx")
            export_for_timing(artifact, path, kind=kind, opset=opset)
            models[name] = Timed(path, digests[name])
        for name, path in onnx_files.items():
            models[name] = Timed(path, digests[name])
        return measure(models, runs=runs)


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for row in info.read_text(errors="replace").splitlines():
            if row.startswith("model name"):
                return row.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _call(timed: Timed) -> Callable[[], object]:
    run = session(timed.path)
    (field,) = run.get_inputs()
    x = np.random.default_rng(0).normal(size=(1, *field.shape[1:])).astype(np.float32)
    logits = run.run(None, {field.name: x})[0]
    if not np.isfinite(logits).all():
        raise VitopsError(f"{timed.path} gives NaN or infinity: its latency would say nothing")
    return lambda: run.run(None, {field.name: x})
