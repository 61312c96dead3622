"""A tiny training with everything in it that could make bits depend on who computes what."""

import hashlib
import os

import torch
import torch.nn.functional as F
from torch import nn

from vitops.config.objectives import CrossEntropy as Section
from vitops.config.pipelines import Resources
from vitops.config.training import Recipe
from vitops.data.keyed import seeded
from vitops.data.loader import TrainStream, open_split
from vitops.errors import VitopsError
from vitops.losses.objective import Objective
from vitops.store import canonical
from vitops.training import Comm, fit, gradients

FULL = {
    "epochs": 3,
    "micro_batches": 4,
    "micro_batch_size": 2,
    "objective": {"kind": "cross_entropy"},
    "preprocessing": {"size": 16},
    "augment": {"crop": {"kind": "pad", "padding": 2}, "erasing": 0.5},
    "mixup": {},
    "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 1e-4},
    "schedule": {"kind": "cosine", "warmup_epochs": 1},
    "sam": {"rho": 0.1},
    "clip_grad": 5.0,
    "ema": 0.9,
}


class ToyNet(nn.Module):
    """Convolution, BatchNorm, dropout, drop path, limits: all that is random or has buffers, also infinite ones."""

    def __init__(self, classes=3):
        from timm.layers import DropPath  # after vitops, which mends torchvision

        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.path = DropPath(0.3)
        self.mix = nn.Conv2d(8, 8, 1)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, classes)
        self.register_buffer("limits", torch.tensor([-torch.inf, torch.inf]))

    def forward(self, x):
        x = self.stem(x)
        x = x + self.path(self.mix(x))
        return self.head(self.drop(x.mean((2, 3)).clamp(*self.limits)))


class ToyObjective(Objective):
    """Cross-entropy whose state depends on the order in which contributions are merged, and on that of its names."""

    def __init__(self, model, *, stop_after=None):
        super().__init__(Section(), model=model, teachers={}, counts=(1, 1, 1))
        self.trail = torch.zeros(3)
        self.calls = torch.zeros((), dtype=torch.int64)
        self.turns = {"b2": torch.tensor(0.1), "b10": torch.tensor(0.7)}
        self.stop_after = stop_after
        self.weight = 1.0

    def on_epoch(self, epoch):
        self.weight = 1.0 + 0.5 * epoch

    def loss(self, sample, rng):
        logits = self.model(sample["input"])
        noise = torch.randn(logits.shape, generator=rng)
        target = sample.get("mixed", sample["target"])
        loss = self.weight * F.cross_entropy(logits + 0.1 * noise, target)
        told = {"turned": sample["input"].mean((0, 1)).T, "mean": logits.detach().mean(0)}
        return loss, told | {"samples": torch.tensor(len(logits))}

    def merge(self, contributions):
        super().merge([{"samples": entry["samples"]} for entry in contributions])
        for entry in contributions:
            for value in entry.values():  # in the order in which they were given
                self.trail = self.trail * 0.7 + value.float().mean() + entry["mean"]
        for value in self.turns.values():
            self.trail = self.trail * 0.9 + value

    def after_step(self, optimizer):
        self.calls += 1
        self.done = self.stop_after is not None and int(self.calls) >= self.stop_after

    def state_dict(self):
        own = {"trail": self.trail.clone(), "calls": self.calls.clone(), **self.turns}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state):
        own = dict(state)
        self.trail, self.calls = own.pop("trail"), own.pop("calls")
        self.turns = {name: own.pop(name) for name in state if name in self.turns}
        super().load_state_dict(own)


class Killed(RuntimeError):
    """Stands for the death of the process in the middle of a training."""


def train(
    split,
    folder,
    *,
    comm=None,
    recipe=None,
    kill_after=None,
    stopping=lambda: False,
    stop_after=None,
    allow_environment_change=False,
    shared=None,
    **resources,
):
    """Train the toy net; returns (digest of everything that came out, result, model)."""
    resources = Resources(launcher="local", **{"checkpoint_seconds": 1e9, "checkpoint_steps": 2, **resources})
    recipe = Recipe(**{**FULL, **(recipe or {})})
    with seeded(5, "toy"):
        model = ToyNet()
    objective = ToyObjective(model, stop_after=stop_after)
    if kill_after is not None:
        kill_in(objective, kill_after)
    comm = comm or Comm.single()
    stream = TrainStream(open_split(split), recipe, 7)
    result = fit(
        model,
        objective,
        stream,
        recipe,
        seed=7,
        comm=comm,
        checkpoints=folder,
        shared_checkpoints=shared,
        resources=resources,
        report=lambda **_: None,
        stopping=stopping,
        allow_environment_change=allow_environment_change,
    )
    return digest(model, objective, result), result, model


def digest(model, objective, result):
    """SHA-256 over weights, buffers, what is trained beside them, averages, objective state and history."""
    hasher = hashlib.sha256()
    states = (model.state_dict(), objective.auxiliary.state_dict(), result.ema_state or {}, objective.state_dict())
    for state in states:
        for name, value in sorted(state.items()):
            hasher.update(name.encode() + value.numpy().tobytes())
    hasher.update(canonical.dumps(result.history))
    return hasher.hexdigest()


def rank_main(rank, split, root, jobs):
    """Entry of one spawned process: rank ``rank`` of every job wide enough; writes ``root/<job>/<rank>.txt``.

    A job is name -> (world, folder of checkpoints, options of ``train``). A job that is killed is
    followed by the next all the same. ``apart``: the ranks compute under two arithmetics. Buckets are so small that the
    toy fills many.
    """
    torch.set_num_threads(1)
    gradients.BUCKET = 50
    for name, (world, folder, options) in jobs.items():
        if rank >= world:
            continue
        meeting = f"file://{root / name / 'meeting'}"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
        apart = options.pop("apart", False)
        if apart and rank:
            os.environ["MKL_CBWR"] = "COMPATIBLE"
        try:
            value, result, _ = train(split, folder, comm=Comm.distributed(), **options)
            answer = f"{value} {result.environment_changes if apart else result.resumed_from}"
        except Killed:
            answer = "killed -"
        except VitopsError as error:
            answer = f"refused {error}"
        os.environ.pop("MKL_CBWR", None)
        (root / name / f"{rank}.txt").write_text(answer)
        torch.distributed.destroy_process_group()


def kill_in(objective, calls):
    """Die in the middle of the optimizer step that follows ``calls`` finished ones (counted in this process)."""
    inner, count = objective.merge, 0

    def merge(contributions):
        nonlocal count
        if count == calls:
            raise Killed
        count += 1
        inner(contributions)

    objective.merge = merge
