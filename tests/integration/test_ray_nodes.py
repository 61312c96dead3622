"""Real Ray on several nodes: a training that loses one goes on with fewer workers, and with more when one comes."""

import hashlib
import os
import threading
from contextlib import ExitStack

import pytest
import ray_nodes
from ray_nodes import close_gate, job_in, open_gate, wait_until, workers_at
from synthetic_split import write_split

from vitops.config.pipelines import Resources
from vitops.errors import Interrupted, VitopsError
from vitops.training import launch
from vitops.training.stage import train

DEADLINE = 3


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("nodes"), train=120)


@pytest.fixture
def cluster(monkeypatch):
    """Start nodes, and have runs of this test use them."""
    for name in (*ray_nodes.FAST_LOSS, "PYTHONPATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    with ExitStack() as stack:

        def start(nodes, cpus=1):
            found = ray_nodes.Nodes(nodes, cpus)
            stack.callback(found.close)
            monkeypatch.setenv("RAY_ADDRESS", found.address)
            return found

        yield start


@pytest.fixture
def nodes(cluster):
    return cluster(2)


class Training:
    """``launch.run`` in a thread, for nodes are added in the main thread."""

    def __init__(self, job):
        self.outcome = self.error = None
        self._thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        self._thread.start()

    def _run(self, job):
        try:
            self.outcome = launch.run(ray_nodes.gated, job)
        except VitopsError as error:
            self.error = error

    def result(self):
        self._thread.join(ray_nodes.PATIENCE)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error
        return self.outcome


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_fewer_workers_after_a_loss_and_more_after_a_gain_give_the_bytes_of_one_process(nodes, split, tmp_path):
    alone = job_in(tmp_path / "alone", split, launcher="local")
    train(alone)
    resources = {"workers": 2, "node_deadline_seconds": DEADLINE}
    job = job_in(tmp_path / "ray", split, **resources)
    for step in (4, 9):
        close_gate(job, step)
    with launch.cluster(Resources(**resources), _folder(tmp_path)):
        training = Training(job)
        wait_until(lambda: workers_at(job, 4))
        nodes.lose()
        wait_until(lambda: 1 in workers_at(job, 4))
        open_gate(job, 4)
        wait_until(lambda: workers_at(job, 9))
        assert workers_at(job, 9) == [1]
        nodes.add()
        wait_until((tmp_path / "workers/make-way").exists)
        open_gate(job, 9)
        outcome = training.result()
    assert outcome.resumed_from is not None
    assert outcome.resumed_from.epoch * 7 + outcome.resumed_from.step == 10
    assert workers_at(job, 11) == [2]
    assert digests(job.out) == digests(alone.out)


def test_a_lost_node_is_named_when_fewer_workers_are_not_allowed(nodes, split, tmp_path):
    resources = {"workers": 2, "min_workers": 2, "node_deadline_seconds": DEADLINE}
    job = job_in(tmp_path / "ray", split, **resources)
    close_gate(job, 4)
    with launch.cluster(Resources(**resources), _folder(tmp_path)):
        training = Training(job)
        wait_until(lambda: workers_at(job, 4))
        nodes.lose()
        with pytest.raises(Interrupted, match=r"room for 1 of at least 2 workers \(each takes 1 CPU\); lost nodes: "):
            training.result()
    assert ray_nodes.newest_checkpoint(job)


def test_two_half_free_nodes_are_no_place_and_one_deadline_ends_the_run(nodes, split, tmp_path):
    nodes.take_half_of_each(2)
    resources = {"workers": 2, "node_deadline_seconds": DEADLINE}
    job = job_in(tmp_path / "ray", split, **resources)
    missing = pytest.raises(Interrupted, match=r"room for 0 of at least 1 workers \(each takes 1 CPU\)\. Nothing came")
    with launch.cluster(Resources(**resources), _folder(tmp_path)), missing:
        Training(job).result()
    assert launches(tmp_path) == 1


def test_a_training_goes_on_as_it_was_when_the_larger_group_cannot_start(cluster, split, tmp_path, caplog):
    nodes = cluster(1, cpus=3)
    resources = {"workers": 4, "node_deadline_seconds": DEADLINE}
    job = job_in(tmp_path / "ray", split, **resources)
    close_gate(job, 4)
    with launch.cluster(Resources(**resources), _folder(tmp_path)):
        training = Training(job)
        wait_until(lambda: workers_at(job, 4))
        nodes.add_without_torch(tmp_path / "another", cpus=1)
        wait_until((tmp_path / "workers/make-way").exists)
        open_gate(job, 4)
        training.result()
    assert (workers_at(job, 4), workers_at(job, 5), workers_at(job, 20)) == ([2], [2], [2])
    assert launches(tmp_path) >= 4  # four workers, for want of places two, four in vain, two
    assert "4 workers could not start; the next try is after 10 s of work: ImportError: no torch here" in caplog.text


def launches(root):
    """How many groups of workers were started."""
    return len(list((root / "workers").glob("group-*")))


def _folder(root):
    folder = root / "workers"
    folder.mkdir()
    return folder
