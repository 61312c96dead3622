"""Dataset version -> index files of the named split, through DVC."""

from tasks.stage import stage_task
from vitops.plan.execute_data import bring

split = stage_task("split", tags={"data"}, work=bring)
