"""What distillation costs: the objectives over plain cross-entropy, and a distillation step over its two halves.

``objective``: loss, auxiliary head and tap of NKD and USKD, forward and backward, timed alone on a net that only hands
out logits and tokens, less the cross-entropy on the same net; as a share of a plain PyTorch step (cross-entropy, AdamW)
of DeiT-Tiny at 32 pixels with 100 classes and at 224 with 1000. The teacher's answers are there already.
``step``: this trainer's NKD step (DeiT-Tiny widths at 32 pixels, a ResNet-32 as the teacher) against its cross-entropy
step and the teacher's forward pass for the same images, decoding and augmentation included: the teacher sees what was
decoded and augmented for the student.

One thread; everything that is compared takes turns, medians over rounds count. The cross-entropy step is also measured
against itself (``control``): where that differs by more than 2 %, ``step`` has no verdict and ``holds`` is null.

    python benchmarks/speed/distill.py [--rounds N]

The last line is one JSON object; exit code 1 when a bound does not hold.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trainer import write_data

from vitops.config.models import CifarResNet
from vitops.config.pipelines import Resources
from vitops.config.training import Train
from vitops.data.loader import TrainStream, open_split
from vitops.losses.objective import Objective
from vitops.losses.registry import build as build_objective
from vitops.losses.teacher import Teacher
from vitops.models.registry import build as build_model
from vitops.training import Comm
from vitops.training.environment import arithmetic
from vitops.training.running import Training

BOUND = {"objective": 0.03, "step": 0.05, "control": 0.02}
FEWEST_ROUNDS = 21
OBJECTIVES = ("cross_entropy", "nkd", "uskd")
SHAPES = {
    "32 px": {"side": 32, "patch": 4, "classes": 100, "batch": 16},
    "224 px": {"side": 224, "patch": 16, "classes": 1000, "batch": 8},
}
CLASSES, BATCH = 10, 16
"""Of ``step``; the data has ten classes."""
Timed = dict[str, list[float]]
"""What was timed -> seconds, one per round."""


def main() -> None:
    """Measure, print a table, print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS)
    rounds = parser.parse_args().rounds
    with arithmetic(threads=1, exact=True), tempfile.TemporaryDirectory() as folder:
        shares = {name: objective_shares(**shape, rounds=rounds) for name, shape in SHAPES.items()}
        figures = summary(shares, step_cost(Path(folder), rounds=rounds), rounds=rounds)
    print(json.dumps(figures))
    sys.exit(1 if figures["holds"] is False else 0)


def summary(shares: Mapping[str, dict[str, float]], step: dict[str, float], *, rounds: int) -> dict[str, Any]:
    """Print a table; the figures as one document."""
    for name, share in shares.items():
        told = ", ".join(f"{objective} {share[objective]:+.2%}" for objective in OBJECTIVES[1:])
        print(f"objective at {name}: {told} of a step of {share['step_s']:.3f} s (control {share['control']:+.2%})")
    print(
        f"step: {step['distill_s']:.3f} s, student {step['student_s']:.3f} s + teacher {step['teacher_s']:.3f} s: "
        f"{step['cost']:+.2%} (control {step['control']:+.2%})"
    )
    ratio = {f"{kind} at {name}": share[kind] for name, share in shares.items() for kind in OBJECTIVES[1:]}
    counts = rounds >= FEWEST_ROUNDS and abs(step["control"]) <= BOUND["control"]
    cheap, whole = max(ratio.values()) < BOUND["objective"], step["cost"] <= BOUND["step"]
    return {
        "figures": {**shares, "step": step, "rounds": rounds},
        "ratio": {**ratio, "step": step["cost"]},
        "bound": BOUND,
        "holds": cheap and (whole if counts else None),
    }


def take_turns(work: Mapping[str, Callable[[int], Any]], *, rounds: int) -> Timed:
    """Seconds of each in every round; a round before the first does not count."""
    seconds: Timed = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, do in work.items():
            start = time.perf_counter()
            do(number)
            seconds[name].append(time.perf_counter() - start)
    return {name: found[1:] for name, found in seconds.items()}


def paired(timed: Timed, value: Callable[..., float]) -> float:
    """The median over rounds of ``value``, which is given the seconds of one round by name."""
    rows = zip(*timed.values(), strict=True)
    return statistics.median(value(**dict(zip(timed, row, strict=True))) for row in rows)


class Given(nn.Module):
    """A net that is done: its tokens (B, 1 + patches, D) and logits (B, C) are parameters, as a tap sees a ViT's."""

    num_prefix_tokens = 1

    def __init__(self, *, batch: int, patches: int, width: int, classes: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.tokens = nn.Parameter(torch.randn(batch, 1 + patches, width))
        self.logits = nn.Parameter(torch.randn(batch, classes))
        self.blocks = nn.Sequential(nn.Identity())
        self.feature_info = [{"module": "blocks.0", "num_chs": width, "reduction": 1}]

    def forward(self, x: Tensor) -> Tensor:
        """The logits, whatever ``x`` is."""
        self.blocks(self.tokens)
        return self.logits


def objective_shares(*, side: int, patch: int, classes: int, batch: int, rounds: int) -> dict[str, float]:
    """What each objective takes beyond cross-entropy, as a share of a plain step; the step's seconds and control."""
    torch.manual_seed(0)
    config = recipe({"kind": "cross_entropy"}, side=side, patch=patch)
    model = build_model(config.model, classes=classes).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    images, target = torch.randn(batch, 3, side, side), torch.randint(classes, (batch,))

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), target).backward()
        optimizer.step()

    width, patches = model.get_classifier().in_features, (side // patch) ** 2
    sample = {"input": images, "target": target}
    alone = {
        kind: alone_with(kind, sample, patches=patches, width=width, classes=classes, side=side) for kind in OBJECTIVES
    }
    timed = take_turns({"step": step, **alone, "again": step}, rounds=rounds)
    whole = statistics.median(timed["step"] + timed["again"])
    shares = {kind: paired(timed, lambda kind=kind, **s: s[kind] - s["cross_entropy"]) / whole for kind in OBJECTIVES}
    control = paired(timed, lambda step, again, **_: again / step - 1)
    return {**shares, "step_s": whole, "control": control}


def alone_with(
    kind: str, sample: dict[str, Tensor], *, patches: int, width: int, classes: int, side: int
) -> Callable[[int], None]:
    """One forward and backward pass of an objective on a net that is done.

    Gradients add up in place, as those of a tapped block do in a real net.
    """
    shape = {"batch": len(sample["target"]), "patches": patches, "width": width, "classes": classes}
    student, teacher = Given(**shape), Given(**shape).requires_grad_(False)
    section = recipe({"kind": kind}, side=side, patch=4).objective
    objective: Objective = build_objective(section, model=student, teachers={"teacher": teacher}, counts=[1] * classes)
    rng = torch.Generator()

    def once(number: int) -> None:
        loss, _ = objective.loss(sample, rng)
        loss.backward()

    return once


def step_cost(folder: Path, *, rounds: int) -> dict[str, float]:
    """Seconds of a distillation step and of its halves, and what it costs beyond them as a share."""
    split = write_data(folder, train=(rounds + 1) * BATCH)
    torch.manual_seed(0)
    guide = build_model(CifarResNet(depth=32, head="linear"), classes=CLASSES).eval().requires_grad_(False)
    kinds = {"student": "cross_entropy", "distill": "nkd", "again": "cross_entropy"}
    training = {name: trainer(kind, guide, split) for name, kind in kinds.items()}
    teacher = Teacher(guide, student=training["student"].model, classes=CLASSES)
    stream = stream_of("nkd", split)
    images = [stream.micro_batch(0, number, 0, mix=False)["input"] for number in range(rounds + 1)]
    steps = {name: lambda number, one=one: one.step(0, number) for name, one in training.items()}
    timed = take_turns({**steps, "teacher": lambda number: teacher.logits(images[number])}, rounds=rounds)
    return {
        **{f"{name}_s": statistics.median(timed[name]) for name in ("distill", "student", "teacher")},
        "cost": paired(timed, lambda distill, student, again, teacher: distill / ((student + again) / 2 + teacher) - 1),
        "control": paired(timed, lambda student, again, **_: again / student - 1),
    }


def trainer(kind: str, guide: nn.Module, split: Path) -> Training:
    """This trainer on DeiT-Tiny widths, with a loader of its own."""
    torch.manual_seed(0)
    config = recipe({"kind": kind}, side=32, patch=4)
    model = build_model(config.model, classes=CLASSES)
    objective = build_objective(config.objective, model=model, teachers={"teacher": guide}, counts=[1] * CLASSES)
    resources = Resources(launcher="local", workers=1)
    return Training(model, objective, stream_of(kind, split), config, seed=0, comm=Comm.single(), resources=resources)


def stream_of(kind: str, split: Path) -> TrainStream:
    """The same samples in the same order for every objective."""
    return TrainStream(open_split(split), recipe({"kind": kind}, side=32, patch=4), 0)


def recipe(objective: dict[str, Any], *, side: int, patch: int) -> Train:
    """A training stage of DeiT-Tiny at a size."""
    return Train.model_validate(
        {
            "model": {
                "kind": "timm",
                "name": "deit_tiny_patch16_224",
                "args": {"img_size": side, "patch_size": patch, "drop_path_rate": 0.1},
            },
            "objective": objective,
            "epochs": 1,
            "micro_batches": 1,
            "micro_batch_size": BATCH,
            "preprocessing": {"size": side},
            "augment": {"crop": {"kind": "pad"}, "randaugment": "rand-m9-mstd0.5-inc1", "erasing": 0.25},
            "optimizer": {"name": "adamw", "lr": 5e-4, "weight_decay": 0.05},
        }
    )


if __name__ == "__main__":
    main()
