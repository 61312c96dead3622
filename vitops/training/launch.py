"""Where a training runs: in this process, or under Ray Train with one process per worker.

Laws: ``body(job, comm)`` is the same function in both cases; nothing but JSON files in the job's checkpoint folder
comes back from workers; an error a user can act on is raised here as itself and never retried, a worker's death
restarts the group from the last checkpoint. This module imports neither torch nor Ray until something is launched.
"""

import importlib
import json
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitops.config.pipelines import Resources
from vitops.errors import Interrupted, UsageError, VerificationError, VitopsError
from vitops.store import canonical, durable
from vitops.store.job import Job, Outcome

if TYPE_CHECKING:
    from vitops.training.comm import Comm

Body = Callable[[Job, "Comm"], Outcome]

MAX_FAILURES = 2
"""Worker deaths after which a launch is given up."""
_QUIET = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_worker_niceness": "0",
}
"""For a cluster inside this machine: Ray's own watching would cost a good part of a core."""
_ERRORS = {kind.__name__: kind for kind in (VitopsError, UsageError, VerificationError, Interrupted)}
_OUTCOME, _ERROR = "outcome.json", "error.json"


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    """A local Ray cluster with room for ``workers``, for the block; enter it in the main thread.

    Signal handlers stay those of the caller. What outlives a SIGKILL of this process, the run's supervisor ends.
    """
    os.environ.update(_QUIET)
    import ray

    saved = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    ray.init(
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        num_cpus=workers + 1,
    )
    for number, handler in saved.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def run(body: Body, job: Job) -> Outcome:
    """Run ``body`` (a module-level function) for the job where its resources say, and return rank 0's outcome.

    Raises what the body raised if that is a VitopsError; other errors come with the worker's traceback.
    """
    resources = Resources.model_validate(job.resources)
    if resources.launcher == "local" or (resources.workers == 1 and not _ray_is_up()):
        from vitops.training.comm import Comm

        return body(job, Comm.single())
    return _run_on_ray(body, job, resources)


def _ray_is_up() -> bool:
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _run_on_ray(body: Body, job: Job, resources: Resources) -> Outcome:
    if not _ray_is_up():
        raise RuntimeError("launch.run with launcher ray needs a surrounding launch.cluster()")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    name = f"{job.stage}-{job.key[:16]}-{uuid.uuid4().hex[:8]}"
    answers = durable.make_folder(job.checkpoints / "launches" / name)
    work = {
        "body": f"{body.__module__}:{body.__qualname__}",
        "job": job.model_dump(mode="json"),
        "answers": str(answers),
    }
    trainer = TorchTrainer(
        _worker,
        train_loop_config=work,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.device == "cuda",
            resources_per_worker={"CPU": 1} if resources.device == "cpu" else {"CPU": 1, "GPU": 1},
        ),
        run_config=RunConfig(
            name=name, storage_path=str(answers), failure_config=FailureConfig(max_failures=MAX_FAILURES)
        ),
    )
    try:
        _fit(trainer, answers)
        return _answer(answers)
    finally:
        durable.remove(answers)


def _fit(trainer: Any, answers: Path) -> None:
    from ray.train import TrainingFailedError

    try:
        trainer.fit()
    except TrainingFailedError:
        if not (answers / _ERROR).exists():
            raise


def _answer(answers: Path) -> Outcome:
    if (answers / _ERROR).exists():
        failed = json.loads((answers / _ERROR).read_bytes())
        raise _ERRORS[failed["error"]](failed["message"])
    return Outcome.model_validate_json((answers / _OUTCOME).read_bytes())


def _worker(work: dict[str, Any]) -> None:
    """One rank. What it raises makes Ray end the other ranks, which may wait for this one, and start the group again.

    A VitopsError is left as an answer first, so that the new group ends at once instead of failing again.
    """
    from vitops.training.comm import Comm

    answers = Path(work["answers"])
    if (answers / _ERROR).exists():
        return
    try:
        comm = Comm.distributed()
        outcome = _resolve(work["body"])(Job.model_validate(work["job"]), comm)
    except Interrupted as error:  # raised on every rank: nobody waits
        _leave(error, answers)
    except VitopsError as error:
        _leave(error, answers)
        raise
    else:
        if comm.rank == 0:
            durable.write_bytes(answers / _OUTCOME, outcome.model_dump_json().encode())


def _leave(error: VitopsError, answers: Path) -> None:
    kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    durable.create_only(answers / _ERROR, canonical.dumps({"error": kind, "message": str(error)}))


def _resolve(name: str) -> Body:
    module, _, attribute = name.partition(":")
    body: Body = getattr(importlib.import_module(module), attribute)
    return body
