"""torch model -> fp32 ONNX, with its parity gate."""

from tasks.stage import stage_task

export = stage_task("export", tags={"compression"})
