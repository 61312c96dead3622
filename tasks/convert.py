"""Weights from elsewhere -> model."""

from tasks.stage import stage_task

convert = stage_task("convert", tags={"training"})
