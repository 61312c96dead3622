"""Models -> metrics on the test set."""

from tasks.stage import stage_task

evaluate = stage_task("evaluate", tags={"evaluation"})
