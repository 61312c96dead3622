"""Everything -> latencies and the offline page."""

from tasks.stage import stage_task

report = stage_task("report", tags={"evaluation"})
