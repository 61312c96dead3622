"""Dataset version -> gate result, through DVC."""

from tasks.stage import stage_task
from vitops.plan.execute_data import bring

validate = stage_task("validate", tags={"data"}, work=bring)
