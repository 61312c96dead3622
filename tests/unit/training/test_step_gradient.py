"""One step's gradients: what overlaps, what takes no part, what only some micro-batches see, and what goes wrong."""

import pytest
import torch
from step_gradients import MANY, ONE_BUCKET, WORLDS, M, PartlyUsed, Squares, by_all, micro_batch, net, run
from torch import nn

from vitops.errors import VitopsError
from vitops.training import Comm, gradients
from vitops.training.comm import Sums
from vitops.training.gradients import StepGradient


@pytest.fixture(scope="module")
def alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each rank has
    yield run(comm=Comm.single())
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return by_all(tmp_path_factory.mktemp("step"))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("case", ["exact", "exact, no overlap"])
def test_overlap_and_workers_leave_every_bit_alone(case, world, found, alone):
    """Gradients, weights, buffers of every type, loss, contributions."""
    assert all(same(rank, alone) for rank in found[case, world])


@pytest.mark.parametrize(("bucket", "while_missing"), [(MANY, True), (ONE_BUCKET, False)])
def test_sums_over_the_ranks_begin_while_backward_goes_on_unless_all_is_one_bucket(bucket, while_missing, monkeypatch):
    monkeypatch.setattr(gradients, "BUCKET", bucket)
    model, missing = net(), []
    step = StepGradient(model, Squares(model), comm=Comm.single(), micro_batches=M)
    monkeypatch.setattr(Sums, "begin", lambda self, flat: missing.append(step._leaf == M - 1 and len(step._missing)))
    step.run(micro_batch, (0,))
    unused = 2
    assert (missing[0] > unused, len(missing) > 1) == (while_missing, while_missing)


def test_fast_mode_is_exact_mode_with_one_worker(found, alone):
    (rank,) = found["fast", 1]
    assert same(rank, alone)


@pytest.mark.parametrize("world", [2, 4])
def test_fast_mode_is_near_exact_mode_and_the_same_on_all_ranks(world, found, alone):
    first, *others = found["fast", world]
    assert all(same(other, first) for other in others)
    assert first.keys() == alone.keys()
    for name, value in alone.items():
        largest = float(value.float().abs().max())
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6 * largest, msg=name)


def test_the_order_of_the_sum_shows_in_this_step(alone):
    """Else the comparisons above would hold for any order."""
    model, gradients_of = net(), []
    for m in range(M):
        model.zero_grad()
        loss, _ = Squares(model).loss(micro_batch(m), torch.Generator())
        gradients_of.append(torch.autograd.grad(loss, model.stem.weight)[0])
    one, two, three, four = gradients_of
    assert not torch.equal(((one + two) + three) + four, (one + two) + (three + four))


def test_a_parameter_that_no_micro_batch_uses_has_a_gradient_of_zeros(alone):
    assert not alone["grad/unused.weight"].any() and not alone["grad/unused.bias"].any()


def test_a_parameter_that_some_micro_batches_use_has_their_share_of_the_mean(alone):
    step_of = net()
    run_one = StepGradient(step_of, Squares(step_of), comm=Comm.single(), micro_batches=M)
    run_one.run(micro_batch, (0,))
    model = net()
    losses = [Squares(model).loss(micro_batch(m), torch.Generator())[0] for m in range(M) if micro_batch(m)["seldom"]]
    (expected,) = torch.autograd.grad(sum(losses) / M, model.seldom.weight)
    torch.testing.assert_close(step_of.seldom.weight.grad, expected)
    assert "grad/seldom.weight" in alone


def test_a_frozen_parameter_has_no_gradient_and_stays(alone):
    assert not [name for name in alone if name.startswith("grad/frozen")]
    assert torch.equal(alone["state/frozen.weight"], net().frozen.weight)


def test_buffers_that_are_no_floats_are_what_the_last_micro_batch_leaves(alone):
    last = micro_batch(M - 1)["input"]
    assert torch.equal(alone["state/largest"], last.abs().amax(0).long()), "the others are smaller, and not taken in"
    assert torch.equal(alone["state/positive"], last.sum(0) > 0)
    others = [torch.equal(alone["state/positive"], micro_batch(m)["input"].sum(0) > 0) for m in range(M - 1)]
    assert not all(others), "a rank that kept its own last one would show"
    assert alone["state/norm.num_batches_tracked"] == 2, "of two steps"


class Twice(Squares):
    """Runs a backward of its own, over the same parameters as the loss that it returns."""

    def loss(self, sample, rng):
        loss, told = super().loss(sample, rng)
        loss.backward(retain_graph=True)
        return loss, told


class Renormed(PartlyUsed):
    """Adds a row of an embedding that the layer itself scales down in place where it is too long."""

    def __init__(self):
        super().__init__()
        self.row = nn.Embedding(4, 3, max_norm=0.1)

    def forward(self, x, *, seldom):
        return super().forward(x, seldom=seldom) + self.row(torch.tensor(int(seldom)))


class Failing(Squares):
    """Breaks off in one micro-batch."""

    def __init__(self, model, *, at):
        super().__init__(model)
        self.left = at

    def loss(self, sample, rng):
        self.left -= 1
        if not self.left:
            raise RuntimeError("broken off")
        return super().loss(sample, rng)


@pytest.mark.parametrize("trained", [True, False])
def test_a_parameter_that_changes_while_the_loss_is_computed_is_named(trained):
    model = Renormed()
    model.row.requires_grad_(trained)
    step = StepGradient(model, Squares(model), comm=Comm.single(), micro_batches=M)
    with pytest.raises(VitopsError, match=r"parameter row\.weight was changed in place .* in a buffer"):
        step.run(micro_batch, (0,))


def test_a_second_backward_in_one_micro_batch_is_told_with_what_an_objective_must_do():
    model = net()
    step = StepGradient(model, Twice(model), comm=Comm.single(), micro_batches=M)
    with pytest.raises(VitopsError, match=r"head\.\w+ got a second gradient .* returns one scalar"):
        step.run(micro_batch, (0,))


@pytest.mark.parametrize("at", [1, 2, M])
def test_a_step_that_broke_off_is_not_gone_on_with(at):
    model = net()
    step = StepGradient(model, Failing(model, at=at), comm=Comm.single(), micro_batches=M)
    with pytest.raises(RuntimeError, match="broken off"):
        step.run(micro_batch, (0,))
    with pytest.raises(VitopsError, match="goes on from its last checkpoint"):
        step.run(micro_batch, (0,))
