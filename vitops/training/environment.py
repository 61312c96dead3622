"""What on the executing host changes the bits of floating-point results, and how a training sets it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

OVERRIDES = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
"""Environment variables that select other kernels."""


def facts(device: str) -> dict[str, Any]:
    """Torch build, instruction set, threads, oneDNN, accelerator and kernel overrides of this process."""
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "mkldnn": torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled),
        "accelerator": torch.cuda.get_device_name() if device == "cuda" else None,
        "overrides": {name: os.environ.get(name) for name in OVERRIDES},
    }


@contextmanager
def arithmetic(*, threads: int, exact: bool) -> Iterator[None]:
    """Fix thread count and deterministic kernels for the block, then put back what was set before."""
    outer_threads, outer_exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(exact)
    try:
        yield
    finally:
        torch.set_num_threads(outer_threads)
        torch.use_deterministic_algorithms(outer_exact)
