"""Every method: the same bytes for 1, 2 and 4 workers, and after a SIGKILL and a resume by another number of them."""

import signal

import pytest
from exact_methods import KILLED, METHODS, STEPS, Methods, Ranks, digests, position


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    return Methods(tmp_path_factory.mktemp("methods"))


@pytest.fixture(scope="module")
def undisturbed(methods):
    """Digests of each method's files as one process makes them."""
    return {method: _whole(methods, method, world=1) for method in METHODS}


def _whole(methods, method, *, world):
    job = methods.job(method, f"whole-{world}")
    assert Ranks(method, job, world=world).wait() == [0] * world
    return digests(job)


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
    codes = Ranks(method, job, world=before, at=(steps, signal.SIGKILL)).wait()
    assert KILLED in codes and 0 not in codes
    resumed = Ranks(method, job, world=after)
    assert resumed.wait() == [0] * after
    place = position(resumed.answer())
    assert place.step % STEPS, "the resume was to be in the middle of an epoch"
    assert steps - 2 <= STEPS * place.epoch + place.step <= steps, "a kill costs at most the interval of 2 steps"
    assert digests(job) == undisturbed[method]


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
