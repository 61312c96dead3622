"""Writing a checkpoint of DeiT-S (weights and AdamW's state), against its disk and its hash; and what a step loses.

``write``: the checkpoint as training writes it (hashed, synced, renamed; reading it back is counted apart) against
write + fsync of the same bytes and against their SHA-256, in turns: its rate over that of the slower of the two. The
disk is measured twice a turn (``disk_again_s``).
``stall``: one worker trains DeiT-S widths at 32 px with checkpoints at the default interval: the time that steps lose
while one is captured or written, as a share of all time. ``control`` is the same figure of as many quiet steps.

    python benchmarks/speed/checkpoint.py [--rounds N] [--seconds S] [--folder DIR]

The last line is one JSON object; exit code 1 when a bound does not hold.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vitops.config.pipelines import Resources
from vitops.config.training import Optimizer, Train
from vitops.errors import Interrupted
from vitops.losses.registry import build as build_objective
from vitops.models.registry import build as build_model
from vitops.store import manifest
from vitops.store.job import Position
from vitops.training import Comm, fit, keeper
from vitops.training import optimizer as optimizers
from vitops.training.checkpoint import Checkpoints, Saved
from vitops.training.state import capture

BOUND = {"write_rate": 0.70, "stall": 0.05}
CLASSES = 10
CONFIG: dict[str, Any] = {
    "model": {"kind": "timm", "name": "deit_small_patch16_224", "args": {"img_size": 32, "patch_size": 4}},
    "objective": {"kind": "cross_entropy"},
    "epochs": 1,
    "micro_batches": 1,
    "micro_batch_size": 8,
    "preprocessing": {"size": 32},
    "optimizer": {"name": "adamw", "lr": 5e-4, "weight_decay": 0.05},
}


def main() -> None:
    """Measure, print a table, print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="checkpoints written for the rate")
    parser.add_argument("--seconds", type=float, default=90.0, help="length of the training for the stall")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write = written(Path(folder), rounds=arguments.rounds)
        stall = stalled(Path(folder) / "training", seconds=arguments.seconds)
    print(
        f"{write['bytes'] / 1e6:.0f} MB: written in {write['write_s']:.3f} s (read back in {write['verify_s']:.3f} s); "
        f"write + fsync {write['disk_s']:.3f} s (again {write['disk_again_s']:.3f} s), "
        f"SHA-256 {write['sha256_s']:.3f} s; rate {write['write_rate']:.0%} of the slower\n"
        f"{stall['checkpoints']} checkpoints in {stall['seconds']:.0f} s of training: steps lost {stall['stall']:.1%} "
        f"(as many quiet steps: {stall['control']:+.1%})"
    )
    if not stall["checkpoints"]:
        sys.exit("no checkpoint was begun and finished in that time: give --seconds more")
    holds = write["write_rate"] >= BOUND["write_rate"] and stall["stall"] < BOUND["stall"]
    ratio = {"write_rate": write["write_rate"], "stall": stall["stall"]}
    peers = {"write_fsync_s": write["disk_s"], "sha256_s": write["sha256_s"]}
    figures = {"write": write, "stall": stall}
    print(json.dumps({"figures": figures, "peers": peers, "ratio": ratio, "bound": BOUND, "holds": holds}))
    sys.exit(0 if holds else 1)


def written(folder: Path, *, rounds: int) -> dict[str, float]:
    """Median seconds of each way to write the state; the median over rounds of our rate over the slower peer's."""
    saved, checkpoints = Saved(state(), {"losses": [0.1] * 1000}), Checkpoints(folder / "checkpoints")
    data = save(saved.tensors)
    seconds: dict[str, list[float]] = {name: [] for name in ("disk", "sha256", "write", "verify", "disk_again")}
    for step in range(rounds):
        seconds["disk"].append(timed(lambda: to_disk(folder / "plain", data)))
        seconds["sha256"].append(timed(lambda: hashlib.sha256(data).hexdigest()))
        reading = Timed(manifest.check)
        manifest.check = reading  # type: ignore[assignment]
        position = Position(epoch=0, step=step)
        whole = timed(partial(checkpoints.save, position, saved))
        manifest.check = reading.inner  # type: ignore[assignment]
        seconds["write"].append(whole - reading.seconds)
        seconds["verify"].append(reading.seconds)
        seconds["disk_again"].append(timed(lambda: to_disk(folder / "plain", data)))
    found = {f"{name}_s": statistics.median(values) for name, values in seconds.items()}
    rows = zip(*(seconds[name] for name in ("disk", "disk_again", "sha256", "write")), strict=True)
    rate = statistics.median(max((one + two) / 2, sha256) / write for one, two, sha256, write in rows)
    return {**found, "bytes": len(data), "write_rate": rate}


def state() -> dict[str, Tensor]:
    """Weights of DeiT-S and AdamW's state after a step."""
    torch.manual_seed(0)
    section = Train.model_validate(CONFIG | {"model": {"kind": "timm", "name": "deit_small_patch16_224"}}).model
    model = build_model(section, classes=1000)
    optimizer = optimizers.build(Optimizer(name="adamw", lr=1e-3), model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return capture(model, optimizer, _objective(model), None)[0]


def to_disk(path: Path, data: bytes) -> None:
    """Write + fsync of a new file, then remove it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)
    os.close(descriptor)
    path.unlink()


def timed(function: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class Timed:
    """A function that counts the seconds spent in it."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self.inner, self.seconds = inner, 0.0

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        start = time.perf_counter()
        found = self.inner(*args)
        self.seconds += time.perf_counter() - start
        return found


class Watched(Checkpoints):
    """Checkpoints that note when each was written: from the end of its capture until it was verified."""

    spans: list[tuple[float, float]] = []

    def save(self, position: Position, saved: Saved) -> None:
        """See ``Checkpoints``."""
        start = time.perf_counter()
        super().save(position, saved)
        self.spans.append((start, time.perf_counter()))


class Clock:
    """A stream that repeats one batch and notes when each step began."""

    steps_per_epoch = 10**6

    def __init__(self) -> None:
        self.starts: list[float] = []
        self._batch = {"input": torch.randn(8, 3, 32, 32), "target": torch.arange(8)}

    def micro_batch(self, epoch: int, step: int, m: int, *, mix: bool) -> dict[str, Tensor]:
        """The batch."""
        self.starts.append(time.perf_counter())
        return dict(self._batch)


def stalled(folder: Path, *, seconds: float) -> dict[str, float]:
    """Train at the default interval; the share of time that steps beside a checkpoint lose against quiet ones."""
    config, clock, end = Train.model_validate(CONFIG), Clock(), time.monotonic() + seconds
    model = build_model(config.model, classes=CLASSES)
    keeper.Checkpoints = Watched  # type: ignore[misc]
    with contextlib.suppress(Interrupted):
        fit(
            model,
            _objective(model),
            clock,
            config,
            seed=0,
            comm=Comm.single(),
            checkpoints=folder,
            resources=Resources(launcher="local", workers=1),
            report=lambda **_: None,
            stopping=lambda: time.monotonic() > end,
        )
    steps = list(zip(clock.starts[1:-1], clock.starts[2:], strict=True))
    spans = [span for span in Watched.spans if span[1] < steps[-1][1]]
    touched = [end - start for start, end in steps if any(start < last and end > first for first, last in spans)]
    quiet = [end - start for start, end in steps if not any(start < last and end > first for first, last in spans)]
    usual, whole = statistics.median(quiet), sum(touched) + sum(quiet)
    chosen = random.Random(0).sample(quiet, min(len(quiet), len(touched)))
    return {
        "stall": sum(value - usual for value in touched) / whole,
        "control": sum(value - usual for value in chosen) / whole,
        "step_s": usual,
        "steps": len(steps),
        "checkpoints": len(spans),
        "seconds": whole,
    }


def _objective(model: nn.Module) -> Any:
    return build_objective(Train.model_validate(CONFIG).objective, model=model, teachers={}, counts=[1] * CLASSES)


if __name__ == "__main__":
    main()
