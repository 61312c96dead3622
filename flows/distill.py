"""A training by itself: a student of any architecture, with a teacher or without, to its accuracy on the test set."""

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.session import opened
from tasks.convert import convert
from tasks.evaluate import evaluate
from tasks.ingest import ingest
from tasks.split import split
from tasks.train import train
from tasks.validate import validate
from vitops.plan.request import RunRequest
from vitops.store.refs import Ref


@flow(
    name="distill",
    flow_run_name="distill-{request.pipeline}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),
    persist_result=False,
)
def distill(request: RunRequest) -> dict[str, Ref]:
    """Version, validate and split the data; train the teacher if there is one, then the student; measure both."""
    with opened(request) as run:
        run.submit(ingest)
        run.submit(validate)
        run.submit(split)
        run.submit(convert, "teacher")
        run.submit(train, "teacher")
        run.submit(train, "student")
        run.submit(evaluate)
        return run.finish()
