"""Tree, SAM, schedules, optimizer groups, averages and attempts: each law by itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import nn

from vitops.config.training import Cosine, MultiStep, Optimizer, Step
from vitops.errors import Interrupted
from vitops.store import manifest
from vitops.store.job import Position
from vitops.training import optimizer as optimizers
from vitops.training import schedules
from vitops.training.buckets import Buckets
from vitops.training.checkpoint import Checkpoints, Saved
from vitops.training.sam import perturbed
from vitops.training.tensor_stream import stream
from vitops.training.tree import TreeSum, share


def halved(values):
    """The tree as its law says it: a range is the sum of its halves."""
    if len(values) == 1:
        return values[0]
    middle = len(values) // 2
    return halved(values[:middle]) + halved(values[middle:])


def tree_sum(values, sizes, *, seed=0):
    """``TreeSum`` of the rows, the pieces of each in an order of their own."""
    total = TreeSum(sizes, leaves=len(values), device=torch.device("cpu"))
    for leaf, row in enumerate(values):
        for piece in torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed + leaf)).tolist():
            total.put(leaf, piece, row.split(sizes)[piece])
    return total.total


@pytest.mark.parametrize(
    ("micro_batches", "world"), [(1, 1), (4, 2), (8, 8), (12, 4), (6, 2), (20, 4), (7, 1), (16, 1)]
)
def test_shares_are_subtrees_of_the_whole(micro_batches, world):
    values = torch.randn(micro_batches, 9, generator=torch.Generator().manual_seed(0)) * 1e3
    ranks = [share(micro_batches, rank=rank, world=world) for rank in range(world)]
    sums = [tree_sum(values[own.start : own.stop], [2, 4, 3]) for own in ranks]
    while len(sums) > 1:
        sums = [sums[i] + sums[i + 1] for i in range(0, len(sums), 2)]
    assert torch.equal(sums[0], halved(values))


def test_a_second_sum_owes_nothing_to_the_first():
    one, two = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))
    total = TreeSum([5], leaves=8, device=torch.device("cpu"))
    for values in (one, two):
        for leaf, row in enumerate(values):
            total.put(leaf, 0, row)
    assert torch.equal(total.total, halved(two))


def test_the_tree_differs_from_a_plain_sum():
    values = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    plain = values[0].clone()
    for value in values[1:]:
        plain += value
    assert not torch.equal(tree_sum(values, [50]), plain)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    full=st.integers(1, 20),
    order=st.randoms(use_true_random=False),
)
def test_buckets_leave_whole_and_from_the_end_whatever_comes_first(sizes, full, order):
    buckets, passes = Buckets(sizes, full=full), []
    for _ in range(2):
        pieces, come, left = list(range(len(sizes))), set(), []
        order.shuffle(pieces)
        for piece in pieces:
            come.add(piece)
            for elements in buckets.arrive(piece):
                inside = [p for p in pieces if elements.start <= sum(sizes[:p]) < elements.stop]
                assert come >= set(inside)
                left.append(elements)
        passes.append(left)
    assert passes[0] == passes[1], "every rank sends the same buckets in the same order"
    ends = [sum(sizes), *(elements.start for elements in passes[0])]
    assert [elements.stop for elements in passes[0]] == ends[:-1] and ends[-1] == 0
    assert all(elements.stop - elements.start >= full for elements in passes[0][:-1])


@pytest.mark.parametrize("world", [3, 8])
def test_workers_that_cannot_share_are_refused(world):
    with pytest.raises(ValueError, match="power of two"):
        share(12, rank=0, world=world)


def parameters(*values):
    made = [nn.Parameter(torch.tensor(value)) for value in values]
    for parameter in made:
        parameter.grad = 3 * parameter.detach()
    return made


def test_sam_moves_all_parameters_jointly_by_rho_and_restores_their_bits():
    made = parameters([3.0, 0.1], [4.0])
    before = [parameter.detach().clone() for parameter in made]
    with perturbed(made, rho=0.5, adaptive=False) as norm:
        steps = [parameter.detach() - old for parameter, old in zip(made, before, strict=True)]
        assert math.isclose(math.sqrt(sum(float(step.square().sum()) for step in steps)), 0.5, rel_tol=1e-5)
        assert math.isclose(float(norm), 3 * math.sqrt(25.01), rel_tol=1e-6)
    assert all(torch.equal(parameter, old) for parameter, old in zip(made, before, strict=True))


def test_adaptive_sam_scales_with_the_weights():
    (made,) = parameters([2.0, -1.0])
    old = made.detach().clone()
    with perturbed([made], rho=0.1, adaptive=True):
        norm = (old.abs() * made.grad).norm()
        assert torch.allclose(made.detach(), old + 0.1 * old.square() * made.grad / norm)


def test_sam_restores_after_an_error():
    (made,) = parameters([2.0])
    with pytest.raises(KeyError), perturbed([made], rho=1.0, adaptive=False):
        raise KeyError
    assert made.item() == 2.0


def rate(schedule, update):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedules.build(schedule, optimizer, steps_per_epoch=10, epochs=6).step_update(update)
    return optimizer.param_groups[0]["lr"]


def test_cosine_warms_up_and_ends_near_the_minimum():
    schedule = Cosine(warmup_epochs=1, warmup_lr=0.1, min_lr=0.01)
    assert rate(schedule, 0) == 0.1
    assert rate(schedule, 5) == pytest.approx(0.55)
    assert rate(schedule, 10) == 1.0
    assert rate(schedule, 35) == pytest.approx(0.505)
    assert rate(schedule, 60) == pytest.approx(0.01)
    assert all(rate(schedule, t) > rate(schedule, t + 1) for t in range(10, 59))


def test_multistep_multiplies_at_each_milestone():
    schedule = MultiStep(milestones=(2, 4), factor=0.1)
    assert [rate(schedule, t) for t in (0, 19, 20, 39, 40, 59)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_step_multiplies_after_every_so_many_epochs():
    schedule = Step(every=2, factor=0.5)
    assert [rate(schedule, update) for update in (0, 19, 20, 39, 40)] == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_weight_decay_skips_one_dimensional_parameters_unless_asked():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    skipping = optimizers.build(Optimizer(name="adamw", lr=1e-3, weight_decay=0.05), model)
    decays = {group["weight_decay"]: sum(p.ndim for p in group["params"]) for group in skipping.param_groups}
    assert decays == {0.0: 3, 0.05: 2}
    decaying = optimizers.build(Optimizer(name="sgd", lr=1e-3, weight_decay=0.05, decay_1d=True), model)
    assert {group["weight_decay"] for group in decaying.param_groups} >= {0.05}
    assert sum(len(g["params"]) for g in decaying.param_groups if g["weight_decay"]) == 4


def test_sgd_is_plain_momentum():
    built = optimizers.build(Optimizer(name="sgd", lr=0.1), nn.Linear(2, 2))
    assert (type(built), built.defaults["nesterov"], built.defaults["momentum"]) == (torch.optim.SGD, False, 0.9)


def test_nesterov_looks_ahead():
    built = optimizers.build(Optimizer(name="sgd", lr=0.1, nesterov=True), nn.Linear(2, 2))
    assert built.param_groups[0]["nesterov"] and built.param_groups[0]["momentum"] == 0.9


def saved(value):
    return Saved({"x": torch.tensor([value])}, {"position": value})


def test_an_overtaken_attempt_stops_and_leaves_the_folder_alone(tmp_path):
    stale, current = Checkpoints(tmp_path), Checkpoints(tmp_path)
    current.save(Position(epoch=0, step=5), saved(5.0))
    before = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("e"))
    with pytest.raises(Interrupted, match=r"attempt 2; this is 1"):
        stale.save(Position(epoch=0, step=6), saved(6.0))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("e")) == before
    newest, damaged = Checkpoints(tmp_path).newest()
    assert (newest.record, damaged) == ({"position": 5.0}, [])


def test_an_unfinished_checkpoint_is_never_read(tmp_path):
    Checkpoints(tmp_path).save(Position(epoch=0, step=1), saved(1.0))
    aside = tmp_path / "aside-e000000-s000000002-a000001"
    aside.mkdir()
    (aside / "state.safetensors").write_bytes(b"torn")
    newest, damaged = Checkpoints(tmp_path).newest()
    assert (newest.record["position"], damaged) == (1.0, [])
    assert not aside.exists()


def test_what_is_packed_is_unpacked():
    again = Saved.unpack(saved(2.5).pack())
    assert (again.record, again.tensors["x"].item()) == ({"position": 2.5}, 2.5)


def test_a_stream_of_tensors_is_a_safetensors_file():
    types = [getattr(torch, name) for name in ("float32", "bool", "int64", "bfloat16", "uint8", "float64", "float16")]
    shapes = [(2, 3), (), (0, 4), (5,)]
    tensors = {
        f'{label}/\u00fc"\\/{dtype}': torch.arange(math.prod(shape)).reshape(shape).to(dtype)
        for label, shape in zip("badc", shapes, strict=True)
        for dtype in types
    }
    assert list(stream(tensors)) == [save(tensors)], "what is small is one piece"
    assert list(stream({})) == [save({})]
    large = {f"{number:02}": torch.full((number * 40_000,), number, dtype=torch.int32) for number in range(20)}
    assert b"".join(stream(large)) == save(large)


def test_a_checkpoint_is_hashed_as_it_is_written(tmp_path):
    """A tensor of several pieces; what the manifest says of the file is found again when it is read."""
    large = torch.randn(5_000_000)
    Checkpoints(tmp_path).save(Position(epoch=0, step=1), Saved({"large": large}, {}))
    (folder,) = tmp_path.glob("e*")
    assert manifest.read(folder) == manifest.scan(folder)
    assert torch.equal(load_file(folder / "state.safetensors")["large"], large)
