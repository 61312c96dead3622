"""What of the executing host is told in receipts and checkpoints: it enters no key and no exact artifact.

Processor, its vector extensions, and the environment variables that select other kernels change the bits of
floating-point results.
"""

import os
import platform
from pathlib import Path
from typing import Any

OVERRIDES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Environment variables that select other kernels."""
_MODEL = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
_VECTORS = ("avx", "fma", "amx", "sve", "asimd")


def host_facts() -> dict[str, Any]:
    """Python, system, and ``arithmetic_facts``, as JSON."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        **arithmetic_facts(),
    }


def arithmetic_facts() -> dict[str, Any]:
    """``processor`` (its model), ``instruction_set`` (vector extensions; both Linux only) and ``overrides``."""
    said = _processor()
    flags = (said.get("flags") or said.get("Features") or "").split()
    return {
        "processor": " ".join(f"{name} {said[name]}" for name in _MODEL if name in said),
        "instruction_set": sorted(flag for flag in flags if flag.startswith(_VECTORS)),
        "overrides": {name: os.environ.get(name) for name in OVERRIDES},
    }


def _processor() -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor; nothing where there is no such file."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
