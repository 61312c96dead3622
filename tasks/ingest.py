"""Source -> dataset version (tars, index, sample table), through DVC."""

from tasks.stage import stage_task
from vitops.plan.execute_data import bring

ingest = stage_task("ingest", tags={"data"}, work=bring)
