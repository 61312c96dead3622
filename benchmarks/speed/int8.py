"""Int8 against fp32 in ONNX Runtime, one thread: speed and file size.

Two models: DeiT-Tiny widths at 32 px (192 wide, 12 blocks, 3 heads, patch 4, seeded random weights: speed and size do
not depend on what the weights are), exported and quantized here; and, with ``--package DIR``, a package as it is.
Runs of both files are interleaved, so that a busy machine slows both alike; the median of each is compared.

    python benchmarks/speed/int8.py [--package DIR] [--runs N] [--batch B]

The last line is one JSON object. ``holds`` compares with ``bound`` where the CPU has VNNI, and is null elsewhere.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitops.compression.export import MODEL, to_onnx, write
from vitops.compression.quantization.kernels import count
from vitops.compression.quantization.static import INT8_MODEL, quantized
from vitops.evaluation.onnx_session import session
from vitops.models.pruned_vit import build

BOUNDS = {
    "deit_tiny": {"speedup": 1.6, "ratio": 0.30},
    "package": {"speedup": 1.2, "ratio": 0.40},
}
SIDE = 32
WARM_UP = 10


def main() -> None:
    """Measure, print a table, print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, help="folder with model.onnx and model.int8.onnx")
    parser.add_argument("--runs", type=int, default=300, help="timed runs of each file")
    parser.add_argument("--batch", type=int, default=1, help="images per run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        export_deit_tiny(Path(folder))
        figures["deit_tiny"] = compare(Path(folder), runs=arguments.runs, batch=arguments.batch)
    if arguments.package:
        figures["package"] = compare(arguments.package, runs=arguments.runs, batch=arguments.batch)
    for name, row in figures.items():
        print(
            f"{name}: fp32 {row['fp32_ms']:.2f} ms, int8 {row['int8_ms']:.2f} ms, {row['speedup']:.2f}x faster; "
            f"{row['fp32_bytes']} to {row['int8_bytes']} bytes ({row['ratio']:.3f}x)"
        )
    bound = {name: BOUNDS[name] for name in figures}
    vnni = has_vnni()
    verdict = holds(figures) if vnni else None
    print(json.dumps({**figures, "vnni": vnni, "bound": bound, "holds": verdict}))
    sys.exit(1 if verdict is False else 0)


def export_deit_tiny(folder: Path) -> None:
    """fp32 and int8 files of a DeiT-Tiny for 32 px images with seeded random weights."""
    depth, heads, width = 12, 3, 64
    torch.manual_seed(0)
    model = build(
        {
            "img_size": SIDE,
            "patch_size": 4,
            "classes": 10,
            "distilled": True,
            "emb": heads * width,
            "h": [heads] * depth,
            "qk": [width] * depth,
            "v": [width] * depth,
            "mlp": [4 * heads * width] * depth,
            "scale": width**-0.5,
            "ln": {"mode": "plain", "dense_emb": heads * width},
        }
    )
    floating = to_onnx(model, inputs={"image": (3, SIDE, SIDE)}, opset=20)
    write(floating, folder / MODEL)
    write(quantized(floating, torch.randn(64, 3, SIDE, SIDE)), folder / INT8_MODEL)


def compare(folder: Path, *, runs: int, batch: int) -> dict[str, Any]:
    """Median milliseconds, sizes and kernels of both files of a folder."""
    files = {"fp32": folder / MODEL, "int8": folder / INT8_MODEL}
    sessions = {name: session(path) for name, path in files.items()}
    (field,) = sessions["fp32"].get_inputs()
    images = np.random.default_rng(0).standard_normal((batch, *field.shape[1:]), dtype=np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in files}
    for number in range(WARM_UP + runs):
        for name, run in sessions.items():
            start = time.perf_counter()
            run.run(None, {field.name: images})
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    fp32, int8 = (statistics.median(seconds[name]) for name in ("fp32", "int8"))
    kernels = count(files["int8"])
    before, after = (files[name].stat().st_size for name in ("fp32", "int8"))
    return {
        "fp32_ms": 1e3 * fp32,
        "int8_ms": 1e3 * int8,
        "speedup": fp32 / int8,
        "fp32_bytes": before,
        "int8_bytes": after,
        "ratio": after / before,
        "batch": batch,
        "integer_kernels": kernels.integer,
        "float_kernels": kernels.floating,
    }


def has_vnni() -> bool:
    """Whether the CPU multiplies 8-bit integers natively."""
    path = Path("/proc/cpuinfo")
    return path.is_file() and bool({"avx512_vnni", "avx_vnni"} & set(path.read_text().split()))


def holds(figures: dict[str, dict[str, Any]]) -> bool:
    """Whether every figure keeps its bound."""
    return all(
        row["speedup"] >= BOUNDS[name]["speedup"] and row["ratio"] <= BOUNDS[name]["ratio"]
        for name, row in figures.items()
    )


if __name__ == "__main__":
    main()
