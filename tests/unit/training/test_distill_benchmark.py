"""benchmarks/speed/distill.py: it measures what it says at toy size, and a noisy machine is no verdict."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

SPEED = Path(__file__).resolve().parents[3] / "benchmarks/speed"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SPEED)
        yield importlib.import_module("distill")
        for name in ("distill", "trainer"):
            del sys.modules[name]


def verdict(benchmark, *, uskd=0.01, cost=0.01, control=0.0, rounds=21):
    share = {"cross_entropy": 0.0, "nkd": 0.001, "uskd": uskd, "step_s": 1.0, "control": 0.0}
    step = {"distill_s": 1.0, "student_s": 0.9, "teacher_s": 0.1, "cost": cost, "control": control}
    return benchmark.summary({"32 px": share}, step, rounds=rounds)["holds"]


def test_a_dear_step_counts_only_where_equal_steps_are_equal(benchmark):
    assert verdict(benchmark) is True
    assert verdict(benchmark, cost=0.06) is False
    assert verdict(benchmark, cost=0.06, control=-0.03) is None
    assert verdict(benchmark, rounds=20) is None


def test_a_dear_objective_counts_always(benchmark):
    assert verdict(benchmark, uskd=0.04) is False
    assert verdict(benchmark, uskd=0.04, control=0.03) is False


def test_an_objective_alone_reaches_logits_tokens_and_its_own_head(benchmark, monkeypatch):
    nets = []
    built = benchmark.build_objective
    monkeypatch.setattr(benchmark, "build_objective", lambda *a, **k: nets.append(built(*a, **k)) or nets[-1])
    sample = {"input": torch.zeros(2, 3, 16, 16), "target": torch.tensor([0, 1])}
    benchmark.alone_with("uskd", sample, patches=4, width=8, classes=5, side=16)(0)
    (objective,) = nets
    parameters = [objective.model.logits, objective.model.tokens, *objective.auxiliary.parameters()]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)


def test_shares_and_the_cost_of_a_step_are_measured(benchmark, tmp_path):
    shares = benchmark.objective_shares(side=16, patch=8, classes=10, batch=2, rounds=1)
    assert shares["cross_entropy"] == 0 and shares["step_s"] > 0
    step = benchmark.step_cost(tmp_path, rounds=1)
    assert min(step["distill_s"], step["student_s"], step["teacher_s"]) > 0


def test_a_distillation_step_asks_the_loader_once(benchmark, tmp_path, monkeypatch):
    asked, whole = [], benchmark.TrainStream.micro_batch
    monkeypatch.setattr(
        benchmark.TrainStream, "micro_batch", lambda self, *a, **k: asked.append(a) or whole(self, *a, **k)
    )
    split = benchmark.write_data(tmp_path, train=benchmark.BATCH)
    guide = benchmark.build_model(benchmark.CifarResNet(depth=8, head="linear"), classes=benchmark.CLASSES)
    benchmark.trainer("nkd", guide, split).step(0, 0)
    assert asked == [(0, 0, 0)]
