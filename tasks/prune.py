"""Dense model -> really smaller, fine-tuned model; a second attempt resumes from the last checkpoint."""

from tasks.stage import stage_task

prune = stage_task("prune", tags={"training"}, retries=1, retry_delay_seconds=5)
