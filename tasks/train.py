"""Split (and teacher) -> model; a second attempt resumes from the last checkpoint."""

from tasks.stage import stage_task

train = stage_task("train", tags={"training"}, retries=1, retry_delay_seconds=5)
