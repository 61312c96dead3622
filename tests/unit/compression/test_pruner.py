"""Selection, and pruning inside the training loop."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pruning_units import tiny_dims, tiny_model

from vitops.compression.pruning.cost import macs
from vitops.compression.pruning.groups import keep_all, kept_dims, kind, layout, tensor_masks, widths
from vitops.compression.pruning.pruner import Pruner, rules
from vitops.compression.pruning.selection import check, chunks, groups, select, smallest
from vitops.config.compression import Divisors, Prune, Widths
from vitops.config.objectives import CrossEntropy
from vitops.config.pipelines import Resources
from vitops.config.training import MultiStep, Optimizer, Preprocessing, Recipe
from vitops.errors import Interrupted, UsageError
from vitops.losses.registry import build as build_objective
from vitops.training import Comm, fit

ALL = ("emb", "h", "qk", "v", "mlp")


def recipe(**changes):
    values = {
        "objective": CrossEntropy(),
        "epochs": 3,
        "micro_batches": 2,
        "micro_batch_size": 4,
        "preprocessing": Preprocessing(size=16),
        "optimizer": Optimizer(name="adamw", lr=1e-3, weight_decay=0.05),
        "schedule": MultiStep(milestones=()),
    }
    return Recipe(**(values | changes))


def config(**changes):
    values = {
        "target": 0.5,
        "structures": ALL,
        "min_dims": Widths(emb=16, h=1, qk=2, v=2, mlp=8),
        "group_sizes": Widths(emb=4, h=1, qk=2, v=2, mlp=8),
        "groups_per_round": 2,
        "interval": 2,
        "finetune": recipe(),
    }
    return Prune(**(values | changes))


def make_rules(**changes):
    return rules(config(**changes), full_cost=macs(tiny_dims()))


def flat(value=1.0):
    return {name: torch.full((size,), value, dtype=torch.float64) for name, size in widths(tiny_dims()).items()}


def random_saliency(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(size, generator=generator).double() for name, size in widths(tiny_dims()).items()}


def test_lowest_groups_of_the_whole_net_go_first():
    values = flat()
    values["b1.mlp"][8:16] = 1e-6
    values["b0.qk"][[1, 6]] = 1e-5
    found = select(values, keep_all(tiny_dims()), dense=tiny_dims(), rules=make_rules(eta_rel=0.0), cost=macs)
    assert [group.structure for group in found.removed] == ["b1.mlp", "b0.qk"]
    assert (~found.keep["b1.mlp"]).nonzero().flatten().tolist() == list(range(8, 16))
    assert (~found.keep["b0.qk"]).nonzero().flatten().tolist() == [1, 6]
    assert found.dims["mlp"] == [48, 40]
    assert found.cost == macs(found.dims) < macs(tiny_dims())
    assert found.threshold == pytest.approx(2e-5)


def test_the_latency_term_prefers_what_saves_more():
    found = select(flat(), keep_all(tiny_dims()), dense=tiny_dims(), rules=make_rules(eta_rel=1e3), cost=macs)
    assert {group.structure for group in found.removed} == {"emb"}


def test_median_saliency_scales_the_latency_term():
    chosen = make_rules(eta_rel=2.0)
    small, large = (
        select(flat(value), keep_all(tiny_dims()), dense=tiny_dims(), rules=chosen, cost=macs) for value in (1.0, 10.0)
    )
    assert large.eta == pytest.approx(10 * small.eta) == pytest.approx(20 / macs(tiny_dims()))


def test_equal_scores_go_in_the_order_of_the_net_whatever_order_they_come_in():
    chosen = make_rules(eta_rel=0.0, group_sizes=Widths(emb=2, h=2, qk=2, v=2, mlp=2), groups_per_round=20)
    values = flat()
    first, second = (
        select(given, keep_all(tiny_dims()), dense=tiny_dims(), rules=chosen, cost=macs)
        for given in (values, dict(sorted(values.items())))
    )
    assert list(values) != sorted(values)
    assert first.removed == second.removed


def test_only_named_structures_are_pruned():
    chosen = make_rules(structures=("mlp",))
    found = groups(flat(), keep_all(tiny_dims()), rules=chosen, unit_cost=dict.fromkeys(widths(tiny_dims()), 0.0))
    assert {kind(group.structure) for group in found} == {"mlp"}


def test_a_short_last_group_of_important_units_does_not_overtake():
    values = flat(100.0)
    values["b0.h"] = torch.tensor([1.0, 1.0, 1.0, 1.5]).double()
    sizes = Widths(emb=4, h=3, qk=2, v=2, mlp=8)
    chosen = make_rules(structures=("h",), group_sizes=sizes, eta_rel=0.0, groups_per_round=1)
    found = select(values, keep_all(tiny_dims()), dense=tiny_dims(), rules=chosen, cost=macs)
    assert found.keep["b0.h"].tolist() == [False, False, False, True]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), eta=st.sampled_from([0.0, 1.0, 50.0]), per_round=st.integers(1, 40))
def test_masks_only_lose_units_cost_never_rises_and_floors_hold(seed, eta, per_round):
    chosen = make_rules(eta_rel=eta, groups_per_round=per_round, target=0.2)
    keep, cost = keep_all(tiny_dims()), macs(tiny_dims())
    for number in range(200):
        found = select(random_saliency(seed + number), keep, dense=tiny_dims(), rules=chosen, cost=macs)
        assert all(bool((found.keep[name] <= mask).all()) for name, mask in keep.items())
        assert found.cost < cost
        assert found.cost == macs(kept_dims(tiny_dims(), found.keep))
        for name, mask in found.keep.items():
            assert int(mask.sum()) >= chosen.floors[kind(name)]
        keep, cost = found.keep, found.cost
        if cost <= chosen.target_cost:
            return
    raise AssertionError("the target was never reached")


def test_everything_can_shrink_to_the_stated_smallest_widths():
    chosen = make_rules(target=1e-6, groups_per_round=1000)
    keep, least = keep_all(tiny_dims()), smallest(tiny_dims(), rules=chosen)
    for number in range(20):
        keep = select(random_saliency(number), keep, dense=tiny_dims(), rules=chosen, cost=macs).keep
    assert kept_dims(tiny_dims(), keep) == least
    assert least["emb"] == 16


def test_chunks_hold_living_units_in_ascending_order():
    scores = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0])
    keep = torch.tensor([True, True, True, False, True])
    assert chunks(scores, keep, size=2) == [(1, 2), (4, 0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": 0.01}, r"prune\.target 0\.010 cannot be reached.*0\.\d+ of the cost is left"),
        ({"min_dims": Widths(emb=16, h=5, qk=2, v=2, mlp=8)}, r"prune\.min_dims\.h is 5, but b0\.h has 4 units"),
        ({"group_sizes": Widths(emb=4, h=1, qk=9, v=2, mlp=8)}, r"prune\.group_sizes\.qk is 9, but b0\.qk has 8"),
    ],
)
def test_a_knob_that_does_not_fit_the_model_is_named(changes, message):
    with pytest.raises(UsageError, match=message):
        check(tiny_dims(), rules=make_rules(**changes), cost=macs)


class Noise:
    """A stream of random images whose label is their brightest third of the columns."""

    steps_per_epoch = 5

    def micro_batch(self, epoch, step, m, *, mix):
        generator = torch.Generator().manual_seed(1000 * epoch + 10 * step + m)
        x = torch.randn(4, 3, 16, 16, generator=generator)
        return {"input": x, "target": x.mean(dim=(1, 2))[:, :15].unflatten(1, (5, 3)).sum(2).argmax(1)}


def run(folder, *, stop_after=None, **changes):
    """Prune the tiny model in the loop; with ``stop_after`` it is interrupted after so many steps and resumed."""
    torch.set_num_threads(1)
    chosen = config(**changes)
    steps = []

    def attempt(stopping):
        model = tiny_model()
        section = chosen.finetune.objective
        inner = build_objective(section, model=model, teachers={}, counts=[1] * 5)
        pruner = Pruner(chosen, inner, model=model)
        resources = Resources(launcher="local", workers=1)
        result = fit(
            model,
            pruner,
            Noise(),
            chosen.finetune.model_copy(update={"epochs": 50}),
            seed=0,
            comm=Comm.single(),
            checkpoints=folder,
            resources=resources,
            report=lambda **values: steps.append(values),
            stopping=stopping,
        )
        return model, pruner, result

    if stop_after is not None:
        calls = iter(range(10_000))
        with pytest.raises(Interrupted):
            attempt(lambda: next(calls) == stop_after - 1)
    return attempt(lambda: False)


def test_pruning_ends_at_the_target_and_masks_hold_in_weights_and_moments(tmp_path):
    model, pruner, result = run(tmp_path)
    dims = kept_dims(tiny_dims(), pruner.keep)
    assert pruner.done
    assert macs(dims) <= 0.5 * macs(tiny_dims())
    assert pruner.log[-1]["cost"] == macs(dims) / macs(tiny_dims())
    assert pruner.log[-1]["dims"]["mlp"] == dims["mlp"]
    assert result.history[-1]["cost"] == pruner.log[-1]["cost"]
    table, weights = layout(tiny_dims()), model.state_dict()
    for name, mask in tensor_masks(tiny_dims(), pruner.keep).items():
        view = table[name].view(weights[name])
        assert torch.equal(view != 0, mask.expand(view.shape))


def test_pruned_entries_have_no_optimizer_moments():
    model = tiny_model()
    inner = build_objective(CrossEntropy(), model=model, teachers={}, counts=[1] * 5)
    pruner = Pruner(config(interval=1, structures=("mlp",), target=0.8), inner, model=model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(3):
        optimizer.zero_grad()
        sample = Noise().micro_batch(0, step, 0, mix=False)
        loss, _ = pruner.loss(sample, torch.Generator())
        loss.backward()
        pruner.after_backward({name: parameter.grad for name, parameter in model.named_parameters()})
        optimizer.step()
        pruner.after_step(optimizer)
    gone = ~torch.cat([pruner.keep["b0.mlp"], pruner.keep["b1.mlp"]])
    assert gone.any()
    for part in ("exp_avg", "exp_avg_sq"):
        moments = torch.cat([optimizer.state[block.mlp.fc1.weight][part] for block in model.blocks])
        assert not moments[gone].any()
        assert moments[~gone].any(dim=1).all()


@pytest.mark.parametrize("stop_after", [1, 2, 5, 7])
def test_interrupted_and_resumed_pruning_gives_the_same_masks_and_weights(tmp_path, stop_after):
    model, pruner, _ = run(tmp_path / "whole")
    again, resumed, result = run(tmp_path / "resumed", stop_after=stop_after)
    assert result.resumed_from is not None
    assert pruner.log == resumed.log
    assert all(torch.equal(mask, resumed.keep[name]) for name, mask in pruner.keep.items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_finished_pruning_is_not_pruned_further_when_it_is_called_again(tmp_path):
    _, pruner, first = run(tmp_path)
    _, again, second = run(tmp_path)
    assert second.resumed_from is not None
    assert again.done
    assert again.log == pruner.log
    assert first.history == second.history


def test_state_of_the_pruner_survives_a_round_trip(tmp_path):
    _, pruner, _ = run(tmp_path)
    pruner.running.add(random_saliency(0))
    fresh = Pruner(pruner.config, copy.deepcopy(pruner.inner), model=tiny_model())
    fresh.load_state_dict(pruner.state_dict())
    before, after = pruner.state_dict(), fresh.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert fresh.done


def test_divisors_come_from_the_configuration(tmp_path):
    _, plain, _ = run(tmp_path / "a")
    _, heavy, _ = run(tmp_path / "b", divisors=Divisors(mlp=1e4))
    first = [
        sum(group["structure"].endswith("mlp") for row in p.log for group in row["removed"]) for p in (plain, heavy)
    ]
    assert first[1] > first[0]
