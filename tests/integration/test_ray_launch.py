"""Real Ray Train: two workers, one of which dies or fails."""

import hashlib
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from synthetic_split import write_split

from vitops.config.pipelines import Resources
from vitops.errors import VerificationError
from vitops.store.job import Job, Outcome
from vitops.training import launch
from vitops.training.stage import train, train_rank

CONFIG = {
    "model": {"kind": "cifar_resnet", "depth": 8},
    "objective": {"kind": "cross_entropy"},
    "epochs": 2,
    "micro_batches": 2,
    "micro_batch_size": 6,
    "preprocessing": {"size": 16},
    "optimizer": {"name": "sgd", "lr": 0.05},
}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("ray"), train=120)


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        patch.setenv("RAY_TMPDIR", folder)
        note = Path(folder, "ray/ray_current_cluster")  # where `ray start` of somebody else leaves its address
        note.parent.mkdir()
        note.write_text("127.0.0.1:1")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # workers import this file's bodies by name
        with launch.cluster(Resources(workers=2), tmp_path_factory.mktemp("workers")):
            assert signal.getsignal(signal.SIGTERM) is before
            yield


def job_in(root, split, *, launcher):
    (root / "out").mkdir(parents=True)
    return Job(
        stage="train",
        key="ab" * 32,
        parameters={"config": CONFIG, "seed": 3},
        inputs={"split": split},
        out=root / "out",
        checkpoints=root / "checkpoints",
        progress=root / "progress.json",
        resources={"launcher": launcher, "workers": 2, "checkpoint_steps": 1},
    )


def dies_once(job, comm):
    """Rank 1 is killed as soon as there is a checkpoint, the first time."""
    marker = job.checkpoints / "died"
    if comm.rank == 1 and not marker.exists():
        threading.Thread(target=_die_after_a_checkpoint, args=(job.checkpoints, marker), daemon=True).start()
    return train_rank(job, comm)


def _die_after_a_checkpoint(checkpoints: Path, marker: Path):
    while not list(checkpoints.glob("e*")):
        time.sleep(0.001)
    marker.touch()
    os.kill(os.getpid(), signal.SIGKILL)


def fails_on_rank_1(job, comm):
    """Rank 1 finds its data altered while rank 0 waits for it."""
    if comm.rank == 1:
        raise VerificationError("shard 0000/000000.tar is altered")
    return train_rank(job, comm)


def names_its_process(job, comm):
    """Rank 0's process id."""
    return Outcome(facts={"pid": os.getpid()})


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_two_workers_of_which_one_dies_give_the_bytes_of_one_process(ray_cluster, split, tmp_path):
    alone = job_in(tmp_path / "alone", split, launcher="local")
    train(alone)
    job = job_in(tmp_path / "ray", split, launcher="ray")
    outcome = launch.run(dies_once, job)
    assert (job.checkpoints / "died").exists()
    assert outcome.resumed_from is not None
    assert digests(job.out) == digests(alone.out)


def test_the_same_workers_take_the_next_job(ray_cluster, split, tmp_path):
    ranks = [launch.run(names_its_process, job_in(tmp_path / name, split, launcher="ray")).facts for name in "ab"]
    assert ranks[0] == ranks[1]


def test_an_error_of_one_worker_is_raised_as_itself_and_not_retried(ray_cluster, split, tmp_path):
    with pytest.raises(VerificationError, match=r"shard 0000/000000\.tar is altered"):
        launch.run(fails_on_rank_1, job_in(tmp_path / "ray", split, launcher="ray"))
