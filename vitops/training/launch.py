"""Where a training runs: in this process, or under Ray Train with one process per worker.

Law: ``body(job, comm)`` is the same function in both cases. This module imports neither torch nor Ray until something
is launched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitops.config.pipelines import Resources
from vitops.store.job import Job, Outcome
from vitops.training.ray_group import Group, group
from vitops.training.ray_worker import Body

_workers: Group | None = None
"""The run's workers, inside ``cluster``."""


@contextmanager
def cluster(resources: Resources, folder: Path) -> Iterator[None]:
    """Ray workers as the resources say for the block, with an empty folder that all nodes see; ``ray_group.group``."""
    global _workers
    with group(resources, folder) as _workers:
        try:
            yield
        finally:
            _workers = None


def run(body: Body, job: Job) -> Outcome:
    """Run ``body`` (a module-level function) for the job where its resources say, and return rank 0's outcome.

    Raises what the body raised if that is a VitopsError; other errors come with the worker's traceback.
    """
    resources = Resources.model_validate(job.resources)
    if _workers is not None and resources.launcher == "ray":
        return _workers.run(body, job)
    if resources.launcher == "ray" and resources.workers > 1:
        raise RuntimeError("launch.run with launcher ray needs a surrounding launch.cluster()")
    from vitops.training.comm import Comm

    return body(job, Comm.single())
