"""One optimizer step of a recipe of pipelines.yaml at its full size: seconds, images a second, peak memory.

Model, teacher, objective, optimizer and accumulation are the recipe's, in one process; the weights are fresh. One
micro-batch of noise, mixed as the recipe says, stands for all of a step: neither decoding nor augmentation is timed.

    python benchmarks/speed/full_step.py [--recipe NAME] [--profile NAME] [--stage student|teacher] [--device cpu|cuda]
                                         [--threads N] [--steps N]

The last line is one JSON object; exit code 1 when the loss is not finite, or a parameter has no finite gradient.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitops.config.load import load
from vitops.config.pipelines import Compress, Resources
from vitops.config.pretrained import Pretrained
from vitops.config.training import Recipe, Train
from vitops.data.keyed import seeded
from vitops.data.kinds.classification import Classification
from vitops.losses.registry import build as build_objective
from vitops.models.counting import parameters
from vitops.models.registry import build as build_model
from vitops.training import Comm
from vitops.training.environment import arithmetic
from vitops.training.running import Training

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Measure, print a line, print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="cifar100-nkd", help="a pipeline of pipelines.yaml that trains a student")
    parser.add_argument("--profile", default="paper", help="one of its profiles")
    parser.add_argument("--stage", choices=["student", "teacher"], default="student", help="which training of it")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--steps", type=int, default=3, help="timed steps; one more comes first")
    arguments = parser.parse_args()
    chosen = Chosen.of(arguments.recipe, profile=arguments.profile, stage=arguments.stage)
    resources = Resources(launcher="local", workers=1, mode="fast", device=arguments.device, threads=arguments.threads)
    with arithmetic(threads=arguments.threads, exact=False):
        figures = measured(chosen, resources, steps=arguments.steps)
    print(
        f"{arguments.recipe}, {arguments.stage}: a step of {figures['images']} images "
        f"({figures['micro_batches']} x {figures['micro_batch_size']} at {figures['side']} px) in "
        f"{figures['step_s']:.2f} s, {figures['images_per_s']:.1f} images/s, {figures['peak_bytes'] / 2**30:.2f} GiB"
    )
    holds = figures.pop("finite")
    about = {"recipe": arguments.recipe, "profile": arguments.profile, "stage": arguments.stage}
    print(json.dumps({"figures": {**about, **figures}, "peers": {}, "ratio": {}, "bound": {}, "holds": holds}))
    sys.exit(0 if holds else 1)


@dataclass(frozen=True)
class Chosen:
    """One training of a recipe: its section, that of the teacher it is given, the number of classes."""

    config: Train
    teacher: Train | Pretrained | None
    classes: int

    @classmethod
    def of(cls, name: str, *, profile: str, stage: str) -> "Chosen":
        """The training ``stage`` of pipeline ``name``. Exits where the pipeline does not train it."""
        loaded = load(ROOT, profile=profile)
        pipeline = loaded.pipeline(name)
        classes = loaded.dataset(pipeline.dataset).gates.classes
        if isinstance(pipeline, Compress) or classes is None:
            sys.exit(f"{name} trains no student, or its dataset has no gates.classes")
        teacher = None if isinstance(pipeline.teacher, str) else pipeline.teacher
        if stage == "student":
            return cls(pipeline.student, teacher, classes)
        if not isinstance(teacher, Train):
            sys.exit(f"{name} trains no teacher")
        return cls(teacher, None, classes)


class Noise:
    """A stream that repeats one micro-batch of noise, in which every class comes up in turn."""

    steps_per_epoch = 10**6

    def __init__(self, recipe: Recipe, *, classes: int) -> None:
        side, count = recipe.preprocessing.resize or recipe.preprocessing.size, recipe.micro_batch_size
        images = list(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))
        with seeded(0, "noise"):
            batch = Classification().train_batch(recipe, classes=classes)
            self._batch = batch(images, np.arange(count) % classes, mix=recipe.mixup is not None)

    def micro_batch(self, epoch: int, step: int, m: int, *, mix: bool) -> dict[str, Tensor]:
        """The batch."""
        return dict(self._batch)


def measured(chosen: Chosen, resources: Resources, *, steps: int) -> dict[str, Any]:
    """Median seconds of a step after a first one, and what belongs to it."""
    training = prepared(chosen, resources)
    training.objective.on_epoch(0)
    seconds = [timed(training, step) for step in range(steps + 1)][1:]
    recipe = chosen.config
    images = recipe.micro_batches * recipe.micro_batch_size
    step_s = statistics.median(seconds)
    trained = [*training.model.parameters(), *training.objective.auxiliary.parameters()]
    return {
        "step_s": step_s,
        "images": images,
        "images_per_s": images / step_s,
        "micro_batches": recipe.micro_batches,
        "micro_batch_size": recipe.micro_batch_size,
        "side": recipe.preprocessing.size,
        "parameters": parameters(training.model),
        "peak_bytes": peak_bytes(resources.device),
        "device": device_name(resources.device),
        "threads": resources.threads,
        "finite": math.isfinite(training.losses[-1]) and all(has_gradient(parameter) for parameter in trained),
    }


def prepared(chosen: Chosen, resources: Resources) -> Training:
    """The training before its first step; a teacher has fresh weights, as the cost does not depend on them."""
    with seeded(0, "full step"):
        model = build_model(chosen.config.model, classes=chosen.classes)
        teachers = {}
        if chosen.teacher is not None:
            teacher = build_model(chosen.teacher.model, classes=chosen.classes)
            teachers = {"teacher": teacher.eval().requires_grad_(False).to(resources.device)}
        counts = [100] * chosen.classes
        objective = build_objective(chosen.config.objective, model=model, teachers=teachers, counts=counts)
    stream = Noise(chosen.config, classes=chosen.classes)
    return Training(model, objective, stream, chosen.config, seed=0, comm=Comm.single(), resources=resources)


def timed(training: Training, step: int) -> float:
    """Seconds of a step, until the device has done it."""
    start = time.perf_counter()
    training.step(0, step)
    if training.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def has_gradient(parameter: nn.Parameter) -> bool:
    """Whether a trainable parameter got a finite gradient in the last step."""
    if not parameter.requires_grad:
        return True
    return parameter.grad is not None and bool(parameter.grad.isfinite().all())


def peak_bytes(device: str) -> int:
    """The most memory that the process (its tensors, on an accelerator) took."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def device_name(device: str) -> str:
    """The accelerator's name, or cpu."""
    return torch.cuda.get_device_name() if device == "cuda" else device


if __name__ == "__main__":
    main()
