"""A dataset version becomes an audited int8 package: the whole road."""

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.session import opened
from tasks.convert import convert
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.ingest import ingest
from tasks.package import package
from tasks.prune import prune
from tasks.quantize import quantize
from tasks.report import report
from tasks.split import split
from tasks.train import train
from tasks.validate import validate
from vitops.plan.request import RunRequest
from vitops.store.refs import Ref


@flow(
    name="retrain",
    flow_run_name="retrain-{request.pipeline}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),
    persist_result=False,
)
def retrain(request: RunRequest) -> dict[str, Ref]:
    """Version, validate and split the data; train teacher and student; prune, export, quantize; measure and package."""
    with opened(request) as run:
        run.submit(ingest)
        run.submit(validate)
        run.submit(split)
        run.submit(convert, "teacher")
        run.submit(train, "teacher")
        run.submit(train, "student")
        run.submit(prune)
        run.submit(export)
        run.submit(quantize)
        run.submit(evaluate)
        run.submit(package)
        run.submit(report)
        return run.finish()
