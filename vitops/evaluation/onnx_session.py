"""The one way an ONNX file is run here: ONNX Runtime on the CPU with a single thread.

One thread because gates, evaluation and latency must mean the same thing on every host and in every process.
This module does not import torch, so that prediction from a package starts fast.
"""

from pathlib import Path
from typing import Literal

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from vitops.errors import VitopsError

_ERRORS_ONLY = 3
_LOAD_ERRORS = (
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)


_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session(
    model: Path | bytes, *, optimized: Path | None = None, level: Literal["none", "basic", "all"] = "all"
) -> ort.InferenceSession:
    """A session on the CPU with 1 thread, from an ONNX file or from its bytes.

    ``optimized``: file that receives the graph as ONNX Runtime really runs it, for counting kernels.
    ``level``: how far the graph is rewritten; ``all`` also fuses and may run other integer kernels than ``basic``.
    Raises VitopsError naming the file when it is missing or no valid model.
    """
    if isinstance(model, Path) and not model.is_file():
        raise VitopsError(f"{model} does not exist: expected an ONNX file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = _LEVELS[level]
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except _LOAD_ERRORS as error:
        name = "the file" if isinstance(model, bytes) else str(model)
        raise VitopsError(f"{name} is not a model that ONNX Runtime {ort.__version__} can load: {error}") from error
