"""The Ray Train workers of one run: they stay, and take one job after another.

A group costs far more to start than a small stage to train, so it starts beside the run's first stages. Jobs and
answers are JSON files in the group's folder, which every worker sees (``ray_worker``). Laws: an error a user can act on
is an answer and is never retried; a worker's death restarts the group, which goes on with the jobs that have no answer
yet. Lost nodes are waited for until a deadline; then the group goes on with as many workers as there is room for, or
ends and says what is missing. When there is room for more again, it saves its work and makes way for a larger one; if
that cannot start, it goes on as it was, and waits longer before the next try.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitops.config.pipelines import Resources
from vitops.errors import Interrupted, VitopsError
from vitops.store import canonical, durable
from vitops.store.job import Job, Outcome
from vitops.training.growth import Growth
from vitops.training.ray_cluster import (
    alive_nodes,
    capacity,
    connected,
    resources_per_worker,
    room,
    workers_for,
)
from vitops.training.ray_worker import (
    CLOSED,
    ERRORS,
    HALT,
    MAKE_WAY,
    OPENED,
    POLL_SECONDS,
    Body,
    answer_file,
    answer_with,
    begun_file,
    job_file,
    serve,
)

_log = logging.getLogger(__name__)

MAX_FAILURES = 2
"""Worker deaths that a group survives, the next one ends the run; a lost node counts once, a smaller group anew."""
STOP_SECONDS = 15.0
"""How long workers may take to save their work; the rest of a container's usual 30 s is for closing what is open
(``vitops/cli/supervise.py`` has the sum)."""


class Group:
    """Workers that wait for jobs in ``folder``."""

    def __init__(self, resources: Resources, folder: Path) -> None:
        self._resources, self._folder = resources, folder
        (folder / OPENED).touch()
        self._workers = self._wanted = resources.workers
        self._fewer: int | None = None  # workers of the group that made way for this larger one
        self._growth = Growth()
        self._jobs = self._launches = 0
        self._failure: BaseException | None = None
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="ray-train", daemon=True)
        self._thread.start()

    def run(self, body: Body, job: Job) -> Outcome:
        """Have all workers run the module-level function ``body`` for the job; return rank 0's outcome.

        Raises what the body raised if that is a VitopsError; Interrupted when the job is to stop, or when nodes are
        missing for longer than their deadline; what Ray says when the group was given up.
        """
        with self._one_at_a_time:
            self._jobs += 1
            work = {"body": f"{body.__module__}:{body.__qualname__}", "job": job.model_dump(mode="json")}
            durable.create_only(job_file(self._folder, self._jobs), canonical.dumps(work))
            found = json.loads(self._answer(job).read_bytes())
        if "error" in found:
            raise ERRORS[found["error"]](found["message"])
        return Outcome.model_validate(found["outcome"])

    def close(self) -> None:
        """Let the workers go home; who does not within seconds is ended with the cluster."""
        (self._folder / CLOSED).touch()
        self._thread.join(timeout=3)

    def _answer(self, job: Job) -> Path:
        """Wait for the answer of the newest job; meanwhile pass on that it is to stop, and look for room."""
        answer, asked = answer_file(self._folder, self._jobs), float("inf")
        while not answer.exists():
            now = time.monotonic()
            if not self._thread.is_alive() and not answer.exists():
                raise self._failure or RuntimeError("the group of Ray workers has ended")
            if job.stopping():
                asked = min(asked, now)
                self._stop(answer, waited=now - asked)
            elif self._begun.exists() and self._growth.take_look(now):
                self._look_for_room()
            time.sleep(POLL_SECONDS)
        return answer

    def _stop(self, answer: Path, *, waited: float) -> None:
        """Ask the workers to save their work; not for long, and not at all while they are still to come."""
        (self._folder / HALT).touch()
        if waited > STOP_SECONDS or not self._begun.exists():
            why = "its workers had not begun" if not self._begun.exists() else f"no step ended in {STOP_SECONDS:.0f} s"
            answer_with(Interrupted(f"stopped while {why}. Run the same command to go on."), answer)

    def _look_for_room(self) -> None:
        """Have a training that works with fewer workers than it should save and make way, if there is room for more."""
        resources, workers = self._resources, self._workers
        if workers == resources.workers:
            return
        more = workers_for(resources, min(workers + room(resources), capacity(resources)))
        if more is not None and more > workers:
            self._wanted = more
            (self._folder / MAKE_WAY).touch()
            (self._folder / HALT).touch()

    @property
    def _begun(self) -> Path:
        return begun_file(self._folder, self._jobs)

    def _keep(self) -> None:
        """The group's thread: workers until the group is closed, as many as there is room for."""
        failures, nodes = 0, alive_nodes()
        try:
            while not (self._folder / CLOSED).exists():
                if self._workers != self._wanted:
                    _log.warning("the training goes on with %d workers instead of %d", self._wanted, self._workers)
                self._fewer = self._workers if self._wanted > self._workers else None
                self._workers = self._wanted
                for name in (self._begun, self._folder / MAKE_WAY, self._folder / HALT):
                    name.unlink(missing_ok=True)
                failures = self._launch(failures, nodes)
        except BaseException as error:  # noqa: BLE001 - whatever it was, ``run`` raises it in the caller's thread
            self._failure = error

    def _launch(self, failures: int, nodes: dict[str, str]) -> int:
        """Have workers until they are done, lost or make way; return how often in a row they could not start."""
        from ray.train import ControllerError, WorkerGroupError

        self._launches += 1
        try:
            self._fit()
        except (ControllerError, WorkerGroupError) as error:
            if self._fewer is not None and not self._begun.exists():
                self._step_back(self._fewer, error)
                return 0
            if isinstance(error, WorkerGroupError):
                raise _own(error) from None
            self._shrink(error, nodes, last=failures == MAX_FAILURES)
            return failures + 1
        return 0

    def _shrink(self, error: Exception, nodes: dict[str, str], *, last: bool) -> None:
        """Want as many workers as there is room for; raise what ends the training if that is too few, or no fewer."""
        fitting = workers_for(self._resources, room(self._resources))
        if fitting is None:
            raise Interrupted(self._missing(nodes)) from error
        if fitting >= self._workers and last:
            raise error
        self._wanted = min(fitting, self._workers)

    def _step_back(self, fewer: int, error: Exception) -> None:
        """Want the workers that made way for this larger group, which could not start."""
        pause, why = self._growth.failed(), str(_own(error)).strip().rpartition("\n")[2]
        _log.warning("%d workers could not start; the next try is after %.0f s of work: %s", self._workers, pause, why)
        self._wanted = fewer

    def _fit(self) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        trainer = TorchTrainer(
            serve,
            train_loop_config={"folder": str(self._folder)},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(
                num_workers=self._workers,
                use_gpu=self._resources.device == "cuda",
                resources_per_worker=resources_per_worker(self._resources),
            ),
            run_config=RunConfig(
                name=f"group-{self._launches}",
                storage_path=str(self._folder),
                failure_config=FailureConfig(
                    max_failures=MAX_FAILURES,
                    controller_failure_limit=0,  # type: ignore[call-arg] # of Train's second version, which we get
                ),
            ),
        )
        trainer.fit()

    def _missing(self, nodes: dict[str, str]) -> str:
        """What a training that ends for want of nodes says; ``nodes`` are those that were there at its start."""
        resources, there = self._resources, alive_nodes()
        lost = ", ".join(name for identity, name in nodes.items() if identity not in there)
        needed = " and ".join(f"{number:.0f} {name}" for name, number in resources_per_worker(resources).items())
        return (
            f"the Ray cluster has room for {room(resources)} of at least {resources.fewest_workers} workers (each takes"
            f" {needed}){f'; lost nodes: {lost}' if lost else ''}. Nothing came within "
            f"{resources.node_deadline_seconds:g} s (resources.node_deadline_seconds). What the last checkpoint has is "
            "saved: run the same command when there is room, or with fewer workers (resources.min_workers, --workers)."
        )


def _own(error: Exception) -> Exception:
    """What a worker said that a user can act on, or else the error itself."""
    said = getattr(error, "worker_failures", {}).values()
    return next((own for own in said if isinstance(own, VitopsError)), error)


@contextmanager
def group(resources: Resources, folder: Path) -> Iterator[Group]:
    """A Ray cluster and its workers for the block, as ``ray_cluster.connected`` says; enter it in the main thread.

    What outlives a SIGKILL of this process, the run's supervisor ends.
    """
    with connected(resources):
        workers = Group(resources, folder)
        yield workers
        workers.close()
