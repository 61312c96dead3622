"""The Ray Train workers of one run: they stay, and take one job after another.

A group costs far more to start than a small stage to train, so it starts beside the run's first stages. Jobs and
answers are JSON files in the group's folder, which every worker sees. Laws: a job has one answer, the first; an error a
user can act on is an answer and is never retried, a worker's death restarts the group, which goes on with the jobs that
have no answer yet.
"""

import json
import os
import pkgutil
import signal
import threading
import time
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
"""Worker deaths after which a group is given up."""
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
_POLL_SECONDS = 0.05
_CLOSED = "closed"


class Group:
    """Workers that wait for jobs in ``folder``."""

    def __init__(self, resources: Resources, folder: Path) -> None:
        self._folder = folder
        self._jobs = 0
        self._failure: BaseException | None = None
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._fit, args=(resources,), name="ray-train", daemon=True)
        self._thread.start()

    def run(self, body: Body, job: Job) -> Outcome:
        """Have all workers run the module-level function ``body`` for the job; return rank 0's outcome.

        Raises what the body raised if that is a VitopsError; what Ray says when the group was given up.
        """
        with self._one_at_a_time:
            self._jobs += 1
            work = {"body": f"{body.__module__}:{body.__qualname__}", "job": job.model_dump(mode="json")}
            durable.create_only(_job(self._folder, self._jobs), canonical.dumps(work))
            answer = _answer(self._folder, self._jobs)
            while not answer.exists():
                if not self._thread.is_alive() and not answer.exists():
                    raise self._failure or RuntimeError("the group of Ray workers has ended")
                time.sleep(_POLL_SECONDS)
        found = json.loads(answer.read_bytes())
        if "error" in found:
            raise _ERRORS[found["error"]](found["message"])
        return Outcome.model_validate(found["outcome"])

    def close(self) -> None:
        """Let the workers go home; who does not within seconds is ended with the cluster."""
        (self._folder / _CLOSED).touch()
        self._thread.join(timeout=3)

    def _fit(self, resources: Resources) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        gpu = resources.device == "cuda"
        trainer = TorchTrainer(
            _serve,
            train_loop_config={"folder": str(self._folder)},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=gpu,
                resources_per_worker={"CPU": 1, "GPU": 1} if gpu else {"CPU": 1},
            ),
            run_config=RunConfig(
                name="group",
                storage_path=str(self._folder),
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 - whatever it was, ``run`` raises it in the caller's thread
            self._failure = error


@contextmanager
def group(resources: Resources, folder: Path) -> Iterator[Group]:
    """A local Ray cluster and its workers for the block; enter it in the main thread.

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
        num_cpus=resources.workers + 1,
    )
    for number, handler in saved.items():
        signal.signal(number, handler)
    try:
        workers = Group(resources, folder)
        yield workers
        workers.close()
    finally:
        ray.shutdown()


def _serve(config: dict[str, Any]) -> None:
    """One rank: every job that has no answer yet, until the group is closed.

    What a body raises makes Ray end the other ranks, which may wait for this one, and start the group again.
    """
    from vitops.training.comm import Comm

    folder, comm, number = Path(config["folder"]), Comm.distributed(), 1
    while _wait(folder, number):
        if not comm.agree(int(_answer(folder, number).exists())):
            _work(folder, number, comm)
        number += 1


def _wait(folder: Path, number: int) -> bool:
    """Wait for a job; False when the group was closed instead."""
    while not _job(folder, number).exists():
        if (folder / _CLOSED).exists():
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _work(folder: Path, number: int, comm: "Comm") -> None:
    work = json.loads(_job(folder, number).read_bytes())
    answer = _answer(folder, number)
    try:
        outcome = _resolve(work["body"])(Job.model_validate(work["job"]), comm)
    except Interrupted as error:  # raised on every rank: nobody waits
        _leave(error, answer)
    except VitopsError as error:
        _leave(error, answer)
        raise
    else:
        if comm.rank == 0:
            durable.create_only(answer, canonical.dumps({"outcome": outcome.model_dump(mode="json")}))


def _leave(error: VitopsError, answer: Path) -> None:
    kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    durable.create_only(answer, canonical.dumps({"error": kind, "message": str(error)}))


def _job(folder: Path, number: int) -> Path:
    return folder / f"job-{number:04d}.json"


def _answer(folder: Path, number: int) -> Path:
    return folder / f"answer-{number:04d}.json"


def _resolve(name: str) -> Body:
    body: Body = pkgutil.resolve_name(name)
    return body
