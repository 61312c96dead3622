"""Every method: the same bytes for 1, 2 and 4 workers, and after a SIGKILL and a resume by another number of them."""

import signal

import pytest
import torch.nn.functional as F
from exact_methods import KILLED, METHODS, PRUNING_STEPS, STEPS, Methods, Ranks, digests, position
from timm.data.auto_augment import RandAugment
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.layers.drop import DropPath

from vitops.compression.pruning.stage import prune_rank
from vitops.training import Comm
from vitops.training.running import Training
from vitops.training.stage import train_rank

RANDOM = {
    "mixup": (Mixup, "__call__"),
    "erasing": (RandomErasing, "__call__"),
    "randaugment": (RandAugment, "__call__"),
    "drop_path": (DropPath, "forward"),
    "dropout": (F, "dropout"),
}
"""What every training of every method is to draw at random, and where it does."""


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    return Methods(tmp_path_factory.mktemp("methods"))


class Undisturbed(dict):
    """Digests of each method's files as one process makes them, once they are asked for."""

    def __init__(self, methods):
        self._methods = methods

    def __missing__(self, method):
        self[method] = _whole(self._methods, method, world=1)
        return self[method]


@pytest.fixture(scope="module")
def undisturbed(methods):
    return Undisturbed(methods)


def _whole(methods, method, *, world):
    job = methods.job(method, f"whole-{world}")
    assert Ranks(method, job, world=world).wait() == [0] * world
    return digests(job)


@pytest.mark.parametrize("method", METHODS)
def test_in_every_training_of_a_method_all_that_is_random_is_on(method, methods, monkeypatch):
    """Pruning has two trainings, PaCo never mixes. Dropout counts above a rate of 0; timm makes no DropPath of 0."""
    drawn = _note(monkeypatch)
    job = methods.job(method, "noted")
    (prune_rank if method == "pruning" else train_rank)(job, Comm.single())
    expected = set(RANDOM) - ({"mixup"} if method == "paco" else set())
    assert list(drawn.values()) == [expected] * (2 if method == "pruning" else 1)


def _note(monkeypatch):
    """Training -> what its steps drew."""
    drawn, step, own = {}, Training.step, set()

    def noting(self, epoch, number):
        own.clear()
        step(self, epoch, number)
        drawn.setdefault(self, set()).update(own)

    monkeypatch.setattr(Training, "step", noting)
    for name, (owner, attribute) in RANDOM.items():
        monkeypatch.setattr(owner, attribute, _noted(getattr(owner, attribute), name, own))
    return drawn


def _noted(inner, name, own):
    def call(*args, **kwargs):
        if name != "dropout" or ((args[1:2] or [kwargs["p"]])[0] and (args[2:3] or [kwargs["training"]])[0]):
            own.add(name)
        return inner(*args, **kwargs)

    return call


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_gives_the_same_bytes_with_more_workers(method, world, methods, undisturbed):
    assert _whole(methods, method, world=world) == undisturbed[method]


@pytest.mark.parametrize(
    ("before", "after", "steps"),
    [(1, 2, 3), (2, 4, STEPS + 3), (4, 1, STEPS - 1)],
    ids=["1->2", "2->4", "4->1"],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_killed_mid_epoch_goes_on_with_other_workers(method, before, after, steps, methods, undisturbed):
    job = methods.job(method, f"{before}-{after}")
    assert steps - 2 <= _killed_and_resumed(method, job, before, after=after, at=steps) <= steps
    assert digests(job) == undisturbed[method]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (4, 1)], ids=["1->2", "2->4", "4->1"])
def test_pruning_killed_in_its_fine_tuning_goes_on_with_other_workers(before, after, methods, undisturbed):
    job = methods.job("pruning", f"fine-tuning-{before}-{after}")
    assert 1 <= _killed_and_resumed("pruning", job, before, after=after, at=PRUNING_STEPS + 3) <= 3
    assert digests(job) == undisturbed["pruning"]


def _killed_and_resumed(method, job, before, *, after, at):
    """Steps of the running training that the resume found; a kill costs at most the interval of 2."""
    codes = Ranks(method, job, world=before, at=(at, signal.SIGKILL)).wait()
    assert KILLED in codes and 0 not in codes
    resumed = Ranks(method, job, world=after)
    assert resumed.wait() == [0] * after
    place = position(resumed.answer())
    assert place.step % STEPS, "the resume was to be in the middle of an epoch"
    return STEPS * place.epoch + place.step


def test_a_restart_while_the_old_worker_still_lives_gives_the_same_bytes(methods, undisturbed):
    job = methods.job("plain", "overlapping")
    old = Ranks("plain", job, world=1, at=(3, signal.SIGSTOP))
    (sleeper,) = old.stopped()
    new = Ranks("plain", job, world=2)
    assert new.wait() == [0, 0]
    made = digests(job)
    sleeper.resume()
    assert old.wait() == [0]
    assert "another run has taken over" in old.answer()["interrupted"]
    assert made == digests(job) == undisturbed["plain"]
