"""Several Ray nodes on this machine, and a training that waits at a step until the test lets it go on.

Every node is a raylet with workers of its own; losing one is a SIGKILL of its raylet, as ``Cluster`` does.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from vitops.store.job import Job
from vitops.training.running import Training
from vitops.training.stage import train_rank

CONFIG = {
    "model": {"kind": "cifar_resnet", "depth": 8},
    "objective": {"kind": "cross_entropy"},
    "epochs": 3,
    "micro_batches": 4,
    "micro_batch_size": 4,
    "preprocessing": {"size": 16},
    "optimizer": {"name": "sgd", "lr": 0.05},
}
PATIENCE = 150
"""Seconds that anything may take that a test waits for."""
FAST_LOSS = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
}
"""Ray's own defaults notice a lost node after half a minute and more."""


class Nodes:
    """A cluster of ``nodes`` nodes beside its head; made and changed in the main thread."""

    def __init__(self, nodes, cpus=1):
        os.environ.update(FAST_LOSS, PYTHONPATH=os.pathsep.join(sys.path), RAY_AUTH_MODE="disabled")
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes, self._frozen = [], []
        for _ in range(nodes):
            self.add(cpus)
        self.address = self._cluster.address

    def add(self, cpus=1, **options):
        """One more node."""
        self._nodes.append(self._cluster.add_node(num_cpus=cpus, **options))

    def add_without_torch(self, folder, cpus):
        """One more node, whose workers find no torch that works."""
        (folder / "torch").mkdir(parents=True)
        (folder / "torch/__init__.py").write_text("raise ImportError('no torch here')")
        self.add(cpus, env_vars={"PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])})

    def take_half_of_each(self, nodes):
        """Somebody else has half a CPU on each of so many nodes, from now on."""
        import ray

        ray.init(address=self.address, configure_logging=False, log_to_driver=False)
        halves = ray.util.placement_group([{"CPU": 0.5}] * nodes, strategy="STRICT_SPREAD", lifetime="detached")
        assert halves.wait(PATIENCE)
        ray.shutdown()

    def lose(self):
        """The newest node is gone from one moment to the next."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

    def freeze(self):
        """The newest node falls silent: none of its processes ends, no connection is closed."""
        raylet = psutil.Process(self._nodes.pop().all_processes["raylet"][0].process.pid)
        self._frozen = [raylet, *raylet.children(recursive=True)]
        for process in self._frozen:
            process.suspend()

    def close(self):
        """End every process of the cluster."""
        for process in self._frozen:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._cluster.shutdown()


def job_in(root, split, **resources):
    """A training whose gates are in ``root/gates``."""
    for name in ("out", "gates"):
        (root / name).mkdir(parents=True)
    return Job(
        stage="train",
        key="ab" * 32,
        parameters={"config": CONFIG, "seed": 3},
        inputs={"split": split},
        out=root / "out",
        checkpoints=root / "checkpoints",
        progress=root / "progress.json",
        stop=root / "stop",
        resources={"checkpoint_steps": 1, **resources},
    )


def gated(job, comm):
    """Train; note the number of workers at each step, and stay in a step as long as it has a closed gate."""
    gates, step = job.out.parent / "gates", Training.step

    def slow_step(training, epoch, number):
        position = epoch * training.steps + number
        if comm.rank == 0:
            (gates / f"at-{position:02d}-workers-{comm.world}").touch()
        while (gates / f"closed-{position:02d}").exists():
            time.sleep(0.02)
        step(training, epoch, number)

    Training.step = slow_step
    try:
        return train_rank(job, comm)
    finally:
        Training.step = step


def close_gate(job, step):
    """Training stays in this step, counted from its start."""
    (job.out.parent / "gates" / f"closed-{step:02d}").touch()


def open_gate(job, step):
    """Training goes on."""
    (job.out.parent / "gates" / f"closed-{step:02d}").unlink()


def workers_at(job, step):
    """With how many workers the training came to this step, each once."""
    found = (job.out.parent / "gates").glob(f"at-{step:02d}-workers-*")
    return sorted(int(path.name.rpartition("-")[2]) for path in found)


def wait_until(condition):
    """Seconds until ``condition()`` holds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < PATIENCE, "it did not happen"
        time.sleep(0.05)
    return time.monotonic() - begun


def newest_checkpoint(job: Job) -> str:
    """Name of the newest checkpoint of a training; empty without one."""
    return max((path.name for path in Path(job.checkpoints).glob("e*")), default="")
