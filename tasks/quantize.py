"""fp32 ONNX -> int8 ONNX, with its accuracy gate."""

from tasks.stage import stage_task

quantize = stage_task("quantize", tags={"compression"})
