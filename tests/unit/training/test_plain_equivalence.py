"""The exact loop computes what a plain PyTorch loop computes: nothing is scaled or left out behind one's back."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitops.config.objectives import CrossEntropy as Section
from vitops.config.pipelines import Resources
from vitops.config.training import Recipe
from vitops.losses.objective import Objective
from vitops.training import Comm, fit

STEPS, EPOCHS, SIZE = 4, 2, 6


class RandomStream:
    """Micro-batches of noise, by position."""

    steps_per_epoch = STEPS

    def micro_batch(self, epoch, step, m, *, mix):
        rng = torch.Generator().manual_seed(100 * epoch + 10 * step + m)
        return {"input": torch.randn(SIZE, 5, generator=rng), "target": torch.randint(3, (SIZE,), generator=rng)}


class Plain(Objective):
    def loss(self, sample, rng):
        return F.cross_entropy(self.model(sample["input"]), sample["target"]), {}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))


def recipe(optimizer, micro_batches):
    return Recipe(
        objective={"kind": "cross_entropy"},
        epochs=EPOCHS,
        micro_batches=micro_batches,
        micro_batch_size=SIZE,
        preprocessing={"size": 8},
        optimizer=optimizer,
        schedule={"kind": "multistep", "milestones": [1], "factor": 0.5},
        clip_grad=0.5,
    )


def trained(optimizer, micro_batches, folder):
    model = network()
    objective = Plain(Section(), model=model, teachers={}, counts=(1, 1, 1))
    fit(
        model,
        objective,
        RandomStream(),
        recipe(optimizer, micro_batches),
        seed=0,
        comm=Comm.single(),
        checkpoints=folder,
        resources=Resources(launcher="local"),
        report=lambda **_: None,
    )
    return model


def plainly_trained(optimizer, model, micro_batches):
    stream = RandomStream()
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * 0.5**epoch
        for step in range(STEPS):
            parts = [stream.micro_batch(epoch, step, m, mix=False) for m in range(micro_batches)]
            inputs, targets = (torch.cat([part[name] for part in parts]) for name in ("input", "target"))
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    return model


def close(one, two):
    return all(torch.allclose(a, b, atol=2e-6) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_sgd_equals_a_plain_loop(micro_batches, tmp_path):
    section = {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "decay_1d": True}
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    plain = plainly_trained(optimizer, model, micro_batches)
    assert close(trained(section, micro_batches, tmp_path), plain)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_adamw_equals_a_plain_loop(micro_batches, tmp_path):
    section = {"name": "adamw", "lr": 0.01, "weight_decay": 0.3, "betas": (0.8, 0.9)}
    model = network()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.3},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9), eps=1e-8)
    plain = plainly_trained(optimizer, model, micro_batches)
    assert close(trained(section, micro_batches, tmp_path), plain)
    assert not close(plain, network())
