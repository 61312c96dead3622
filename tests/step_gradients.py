"""One step's gradients of a net in which not everything takes part, by 1, 2 and 4 processes."""

import multiprocessing

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vitops.config.objectives import CrossEntropy as Section
from vitops.losses.objective import Objective
from vitops.training import Comm, gradients
from vitops.training.gradients import StepGradient

M = 4
"""Micro-batches of a step; their inputs differ by orders of magnitude, so that the order of a sum shows."""
WORLDS = (1, 2, 4)
ONE_BUCKET, MANY = 1 << 40, 20
"""Elements of a bucket: all leaves when backward is over, and piece by piece while it goes on."""
CASES = {"exact": (True, MANY), "exact, no overlap": (True, ONE_BUCKET), "fast": (False, MANY)}


class PartlyUsed(nn.Module):
    """One layer is frozen, one is used by no micro-batch and one by every second; buffers depend on the data."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.frozen, self.unused, self.seldom = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.head = nn.Linear(8, 3)
        self.register_buffer("largest", torch.zeros(6, dtype=torch.int64))
        self.register_buffer("positive", torch.zeros(6, dtype=torch.bool))

    def forward(self, x, *, seldom):
        self.largest.copy_(torch.maximum(self.largest, x.abs().amax(0).long()))
        self.positive.copy_(x.sum(0) > 0)
        x = self.frozen(self.norm(self.stem(x)).relu())
        return self.head(self.seldom(x) if seldom else x)


class Squares(Objective):
    """The mean square of the logits."""

    def __init__(self, model):
        super().__init__(Section(), model=model, teachers={}, counts=(1, 1, 1))

    def loss(self, sample, rng):
        logits = self.model(sample["input"], seldom=bool(sample["seldom"]))
        return logits.square().mean(), {"mean": logits.detach().mean(0)}


def micro_batch(m):
    """The sample of one micro-batch."""
    rng = torch.Generator().manual_seed(m)
    return {"input": torch.randn(5, 6, generator=rng) * 10.0 ** (m - 1), "seldom": torch.tensor(m % 2)}


def net():
    """The net with its initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PartlyUsed()


def run(*, comm, exact=True, bucket=MANY, steps=2):
    """The last of a few steps of plain descent, as named tensors: gradients, weights, buffers, loss, contributions."""
    model = net()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "BUCKET", bucket)
        step = StepGradient(model, Squares(model), comm=comm, micro_batches=M, exact=exact)
    for number in range(steps):
        loss, contributions = step.run(micro_batch, (7, number))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=1e-6)
    found = {f"grad/{name}": value.grad for name, value in model.named_parameters() if value.grad is not None}
    found |= {f"state/{name}": value for name, value in model.state_dict().items()}
    found |= {f"told/{m}": entry["mean"] for m, entry in enumerate(contributions)}
    return {name: value.detach().clone() for name, value in {**found, "loss": torch.tensor(loss)}.items()}


def by_all(root):
    """(case, world) -> what each of its ranks found."""
    for world in WORLDS:
        (root / str(world)).mkdir()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_rank, args=(rank, root)) for rank in range(max(WORLDS))]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
        assert process.exitcode == 0
    return {
        (case, world): [load_file(root / str(world) / f"{case}-{rank}") for rank in range(world)]
        for case in CASES
        for world in WORLDS
    }


def _rank(rank, root):
    torch.set_num_threads(1)
    for world in WORLDS:
        if rank < world:
            meeting = f"file://{root / str(world) / 'meeting'}"
            torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
            for case, (exact, bucket) in CASES.items():
                found = run(comm=Comm.distributed(), exact=exact, bucket=bucket)
                save_file(found, root / str(world) / f"{case}-{rank}")
            torch.distributed.destroy_process_group()
