"""What on the executing host changes the bits of floating-point results, and how a training sets it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import deterministic

from vitops.store.host import arithmetic_facts

FILL_FRESH_MEMORY = False
"""Whether deterministic kernels also fill all fresh memory with NaN: 4 % of a small model's step. No result depends on
it unless a model reads memory that nobody wrote; the tests of exactness have it on, so that such a model is noticed."""


def facts(device: str) -> dict[str, Any]:
    """Torch build, processor, threads, oneDNN, matmul precision, accelerator and kernel overrides, as JSON."""
    return {
        "torch": torch.__version__,
        "torch_source": torch.version.git_version,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "mkldnn": torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "accelerator": _accelerator() if device == "cuda" else None,
        **arithmetic_facts(),
    }


def differences(old: Any, new: Any, name: str = "") -> dict[str, list[Any]]:
    """Dotted name -> [old, new] for each leaf where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [differences(old.get(k), new.get(k), f"{name}.{k}".lstrip(".")) for k in sorted({*old, *new})]
        return {leaf: values for part in parts for leaf, values in part.items()}
    return {} if old == new else {name: [old, new]}


def described(found: Mapping[str, list[Any]]) -> str:
    """``differences`` in words: ``name: old -> new``, ..."""
    return ", ".join(f"{name}: {old} -> {new}" for name, (old, new) in found.items())


def _accelerator() -> dict[str, Any]:
    return {
        "name": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": torch.backends.cudnn.allow_tf32,
    }


@contextmanager
def arithmetic(*, threads: int, exact: bool) -> Iterator[None]:
    """Fix thread count and deterministic kernels for the block, then put back what was set before."""
    outer_threads, outer_exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    outer_filling = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(exact)
    deterministic.fill_uninitialized_memory = FILL_FRESH_MEMORY  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(outer_threads)
        torch.use_deterministic_algorithms(outer_exact)
        deterministic.fill_uninitialized_memory = outer_filling  # type: ignore[attr-defined]
