"""What exactness and the whole trainer cost, against plain PyTorch: DeiT-Tiny widths at 32 px, 4 micro-batches of 32.

Two workers, one thread each; the first step and the launch do not count.
``exact``: this trainer's step (fixed tree, butterfly) against DistributedDataParallel with the same micro-batches under
``no_sync``, both fed from memory, taking turns step by step in the same two processes; ``fast`` stands beside them.
``whole``: the training stage as a run executes it (loader with augmentation, checkpoints at the default interval, Ray
Train, progress file) against that DDP loop alone on the machine, in turns of many steps.
The DDP loops run as PyTorch is set up by default (any kernel) and are also measured against themselves (``control``):
how far two equal things differ on this machine.

    python benchmarks/speed/trainer.py [--turns N] [--rounds N] [--steps N]

The last line is one JSON object; exit code 1 when a bound does not hold.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vitops.config.pipelines import Resources
from vitops.config.training import Train
from vitops.data import stage as data_stage
from vitops.losses.registry import build as build_objective
from vitops.models.registry import build as build_model
from vitops.store.job import Job
from vitops.training import Comm, launch
from vitops.training.environment import arithmetic
from vitops.training.running import Training
from vitops.training.stage import train

BOUND = {"exact_cost": 0.15, "whole_share": 0.92}
WORKERS, CLASSES, SIDE = 2, 10, 32
CONFIG: dict[str, Any] = {
    "model": {
        "kind": "timm",
        "name": "deit_tiny_patch16_224",
        "args": {"img_size": SIDE, "patch_size": 4, "drop_path_rate": 0.1},
    },
    "objective": {"kind": "cross_entropy"},
    "epochs": 1,
    "micro_batches": 4,
    "micro_batch_size": 32,
    "preprocessing": {"size": SIDE},
    "augment": {"crop": {"kind": "pad"}, "randaugment": "rand-m9-mstd0.5-inc1", "erasing": 0.25},
    "mixup": {},
    "optimizer": {"name": "adamw", "lr": 5e-4, "weight_decay": 0.05},
}
STEP = CONFIG["micro_batches"] * CONFIG["micro_batch_size"]
"""Images of one step."""


def main() -> None:
    """Measure, print a table, print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10, help="steps of each loop in the exact comparison")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of the whole trainer's comparison")
    parser.add_argument("--steps", type=int, default=24, help="timed steps of each loop in one round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        split = write_data(Path(folder), train=(arguments.steps + 1) * STEP)
        with pair(Path(folder) / "meeting") as ask:
            turns = ask("turns", arguments.turns)
            rounds = [
                {
                    "bare": ask("bare", arguments.steps),
                    "whole": whole(Path(folder) / f"round-{number}", split, steps=arguments.steps),
                    "again": ask("bare", arguments.steps),
                }
                for number in range(arguments.rounds)
            ]
    figures = summary(turns, rounds)
    print(
        f"one step: exact {figures['exact_s']:.3f} s, fast {figures['fast_s']:.3f} s, DDP {figures['ddp_s']:.3f} s; "
        f"cost exact {figures['exact_cost']:+.1%}, fast {figures['fast_cost']:+.1%} "
        f"(DDP against itself {figures['ddp_control']:+.1%})\n"
        f"one step: whole {figures['whole_s']:.3f} s, bare {figures['bare_s']:.3f} s, share "
        f"{figures['whole_share']:.1%} (bare against itself {figures['bare_control']:+.1%})"
    )
    holds = figures["exact_cost"] <= BOUND["exact_cost"] and figures["whole_share"] >= BOUND["whole_share"]
    ratio = {name: figures[name] for name in BOUND}
    peers = {"ddp_no_sync_s": figures["ddp_s"], "bare_loop_s": figures["bare_s"]}
    print(json.dumps({"figures": figures, "peers": peers, "ratio": ratio, "bound": BOUND, "holds": holds}))
    sys.exit(0 if holds else 1)


def summary(turns: dict[str, list[float]], rounds: list[dict[str, list[float]]]) -> dict[str, float]:
    """Seconds of a step of each loop, and how they compare: medians over what stood side by side."""
    one, whole_, other = (statistics.median(row[name][0] for row in rounds) for name in ("bare", "whole", "again"))
    bare = (one + other) / 2
    share = statistics.median((row["bare"][0] + row["again"][0]) / 2 / row["whole"][0] for row in rounds)
    return {
        **{f"{name}_s": statistics.median(seconds) for name, seconds in turns.items()},
        "exact_cost": cost(turns, "exact"),
        "fast_cost": cost(turns, "fast"),
        "ddp_control": cost(turns, "again"),
        "whole_s": whole_,
        "bare_s": bare,
        "whole_share": share,
        "bare_control": 1 - one / other,
        "workers": WORKERS,
        "steps": len(rounds) and rounds[0]["whole"][1],
    }


def cost(turns: dict[str, list[float]], name: str) -> float:
    """Share of throughput that a loop loses against DDP: the median over turns."""
    return statistics.median(1 - ddp / own for ddp, own in zip(turns["ddp"], turns[name], strict=True))


def write_data(root: Path, *, train: int) -> Path:
    """A dataset of random pictures with so many to train on, ingested and split by the data stages; the split's folder.

    Beside them each class has one picture for validation and one for the test.
    """
    rng = np.random.default_rng(0)
    images = train + (-train % CLASSES) + 2 * CLASSES
    pixels = rng.integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(root / "pictures.npz", images=pixels, labels=np.arange(len(pixels)) % CLASSES)
    (root / "pipelines.yaml").write_text(
        "datasets:\n"
        "  pictures:\n"
        "    source: {kind: arrays, path: pictures.npz, image_size: 32, maximum: 255}\n"
        "    splits: {all: {kind: holdout, test: {kind: per_class, count: 1}, val_per_class: 1}}\n"
        "pipelines: {}\n"
    )
    for stage in ("configure", "arrive", "ingest", "split"):
        data_stage.run(root, "pictures", stage)
    return root / "data" / "pictures" / "splits" / "all"


def whole(folder: Path, split: Path, *, steps: int) -> list[float]:
    """Seconds a step of the training stage under Ray, between its first report and its last; and how many steps."""
    for name in ("out", "ray"):
        (folder / name).mkdir(parents=True)
    resources = Resources(workers=WORKERS)
    job = Job(
        stage="train",
        key="0" * 64,
        parameters={"config": CONFIG, "seed": 0},
        inputs={"split": split},
        out=folder / "out",
        checkpoints=folder / "checkpoints",
        progress=folder / "progress.json",
        resources=resources.model_dump(mode="json"),
    )
    assert job.progress is not None
    with launch.cluster(resources, folder / "ray"):
        first: list[dict[str, Any]] = []
        watcher = threading.Thread(target=_watch, args=(job.progress, first), daemon=True)
        watcher.start()
        train(job)
    last = json.loads(job.progress.read_bytes())
    done = last["step"] - first[0]["step"]
    assert last["step"] == steps + 1 and done > steps / 2, "the first report was missed"
    return [(last["time"] - first[0]["time"]) / done, float(done)]


def _watch(progress: Path, first: list[dict[str, Any]]) -> None:
    while not progress.exists():
        time.sleep(0.05)
    first.append(json.loads(progress.read_bytes()))


Ask = Callable[[str, int], Any]


@contextmanager
def pair(meeting: Path) -> Iterator[Ask]:
    """Two processes that run a loop when asked, and otherwise wait; the answer is rank 0's."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(WORKERS)]
    ranks = [context.Process(target=_rank, args=(rank, meeting, pipes[rank][1])) for rank in range(WORKERS)]
    for rank in ranks:
        rank.start()

    def ask(what: str, steps: int) -> Any:
        for ours, _ in pipes:
            ours.send((what, steps))
        answers = [ours.recv() for ours, _ in pipes]
        return answers[0]

    try:
        yield ask
        for ours, _ in pipes:
            ours.send(None)
    finally:
        for rank in ranks:
            rank.join(10)
            rank.kill()


def _rank(rank: int, meeting: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORKERS)
    loops: dict[str, Any] = {"exact": Own("exact"), "fast": Own("fast"), "ddp": Ddp()}
    for loop in loops.values():
        loop.step(0)
    while (asked := pipe.recv()) is not None:
        what, steps = asked
        pipe.send(_turns(loops, steps) if what == "turns" else _bare(loops["ddp"], steps))
    dist.destroy_process_group()


def _turns(loops: dict[str, Any], steps: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"exact": [], "ddp": [], "fast": [], "again": []}
    for step in range(steps):
        for name, found in seconds.items():
            dist.barrier()
            start = time.perf_counter()
            loops.get(name, loops["ddp"]).step(step)
            found.append(time.perf_counter() - start)
    return seconds


def _bare(loop: Any, steps: int) -> list[float]:
    dist.barrier()
    start = time.perf_counter()
    for step in range(steps):
        loop.step(step)
    return [(time.perf_counter() - start) / steps, float(steps)]


class Memory:
    """Micro-batches that were made before."""

    steps_per_epoch = 10**6

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(0)
        shape = (CONFIG["micro_batch_size"], 3, SIDE, SIDE)
        self._batches = [
            {
                "input": torch.randn(shape, generator=rng),
                "target": torch.randint(CLASSES, shape[:1], generator=rng),
                "mixed": torch.rand((shape[0], CLASSES), generator=rng).softmax(1),
            }
            for _ in range(CONFIG["micro_batches"])
        ]

    def micro_batch(self, epoch: int, step: int, m: int, *, mix: bool) -> dict[str, Tensor]:
        """Micro-batch ``m``, the same in every step."""
        return dict(self._batches[m])


class Own:
    """This trainer's step in one of its modes."""

    def __init__(self, mode: Literal["exact", "fast"]) -> None:
        config, model = Train.model_validate(CONFIG), _model()
        objective = build_objective(config.objective, model=model, teachers={}, counts=[1] * CLASSES)
        resources = Resources(workers=WORKERS, mode=mode)
        self._exact = mode == "exact"
        self._training = Training(
            model, objective, Memory(), config, seed=0, comm=Comm.distributed(), resources=resources
        )

    def step(self, number: int) -> None:
        """One optimizer step."""
        with arithmetic(threads=1, exact=self._exact):
            self._training.step(0, number)


class Ddp:
    """The loop everybody writes: gradients accumulate over the rank's micro-batches, the last backward reduces them."""

    def __init__(self) -> None:
        self._model = DistributedDataParallel(_model())
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=5e-4, weight_decay=0.05, fused=True)
        memory, share = Memory(), CONFIG["micro_batches"] // WORKERS
        own = range(dist.get_rank() * share, (dist.get_rank() + 1) * share)
        self._batches = [memory.micro_batch(0, 0, m, mix=True) for m in own]

    def step(self, number: int) -> None:
        """One optimizer step."""
        self._optimizer.zero_grad(set_to_none=True)
        for position, batch in enumerate(self._batches):
            last = position == len(self._batches) - 1
            with nullcontext() if last else self._model.no_sync():
                loss = F.cross_entropy(self._model(batch["input"]), batch["mixed"]) / len(self._batches)
                loss.backward()
        self._optimizer.step()


def _model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(Train.model_validate(CONFIG).model, classes=CLASSES).train()


if __name__ == "__main__":
    main()
