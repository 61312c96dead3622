"""What the claim benchmarks share: pictures in memory, one training of the product, and the results of finished pairs.

A pair is a configuration and a seed. ``vitops.training.fit`` trains it with the product's own selection, order,
augmentation, objective and teacher; a teacher is a configuration of its own and trained for each seed anew. All
configurations of one seed have the same initial weights and see the same samples in the same order.

A finished pair is one line of the results file and is never run again; one that was cut off goes on from its last
checkpoint (``<results>.checkpoints``, where the teachers' last ones stay). Budgets and bounds stand in the scripts and
are no options: a line of another protocol is refused.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitops.config.datasets import ArchiveSource
from vitops.config.pipelines import Resources
from vitops.config.training import Train
from vitops.data.accuracy import score
from vitops.data.keyed import seeded
from vitops.data.kinds import kind
from vitops.data.order import position_to_sample
from vitops.data.sources.archive import ArchiveReader
from vitops.data.sources.items import class_order
from vitops.data.splits.longtail import longtail_counts, official_selection
from vitops.losses.registry import build as build_objective
from vitops.models.heads import heads
from vitops.models.registry import build as build_model
from vitops.store import canonical
from vitops.training import Comm, fit
from vitops.training.environment import arithmetic

TASK = kind("classification")
THREADS = 1
SEEDS_NEEDED = 3
GROUPS = ("overall", "head", "mid", "tail")
Scores = dict[str, dict[str, float]]
"""Head -> group -> accuracy in percent."""
Term = tuple[str, str, str]
"""Configuration, head and group: one accuracy."""


def arguments(text: str | None) -> argparse.Namespace:
    """``data``, ``results``, ``seeds`` and ``device`` of the command line."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as a tar of {train,test}/<class>/*.jpg")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines of finished pairs; made if missing")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default, help="also chooses the protocol's size")
    return parser.parse_args()


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures of one subset."""

    images: NDArray[np.uint8]
    """(N, H, W, 3)"""
    labels: NDArray[np.int64]
    """(N,)"""
    counts: tuple[int, ...]
    """Pictures of each class, in label order."""


class Archive:
    """The encoded samples of an archive with the subsets ``train`` and ``test``."""

    def __init__(self, path: Path) -> None:
        with ArchiveReader(ArchiveSource(path=path.name), path.parent) as reader:
            items = reader.items()
            self._data = [item.read() for item in items]
        names = class_order(item.class_name for item in items)
        self._classes = len(names)
        self._labels = np.array([names.index(item.class_name) for item in items], dtype=np.int64)
        self._subsets = np.array([item.subset for item in items])

    def train(self, *, side: int, n_max: int | None, imbalance_factor: float = 1.0) -> Pictures:
        """A long-tailed part of the training set, as the papers' code selects it; with factor 1 a balanced one.

        All parts begin alike within each class: a smaller one lies inside a larger one.
        """
        pool = np.flatnonzero(self._subsets == "train")
        counts = longtail_counts(
            len(pool), classes=self._classes, imbalance="exp", imbalance_factor=imbalance_factor, n_max=n_max
        )
        return self._pictures(pool[official_selection(self._labels[pool], counts, seed=0)], side=side)

    def test(self, *, side: int) -> Pictures:
        """The whole test set."""
        return self._pictures(np.flatnonzero(self._subsets == "test"), side=side)

    def _pictures(self, chosen: NDArray[np.int64], *, side: int) -> Pictures:
        images = np.stack([averaged(TASK.decode(self._data[index]), side=side) for index in chosen])
        labels = self._labels[chosen]
        return Pictures(images, labels, tuple(np.bincount(labels, minlength=self._classes).tolist()))


def averaged(image: NDArray[np.uint8], *, side: int) -> NDArray[np.uint8]:
    """(H, H, 3) at ``side`` pixels, each the mean of a square of H / side."""
    factor = len(image) // side
    squares = image.reshape(side, factor, side, factor, 3)  # (side, factor, side, factor, 3)
    return squares.mean((1, 3)).round().astype(np.uint8)


class PictureStream:
    """The loader's order and augmentation over pictures in memory; one micro-batch a step."""

    def __init__(self, pictures: Pictures, config: Train, seed: int) -> None:
        assert config.micro_batches == 1
        self._pictures, self._seed, self._size = pictures, seed, config.micro_batch_size
        self._batch = TASK.train_batch(config, classes=len(pictures.counts))
        self.steps_per_epoch = len(pictures.labels) // self._size

    def micro_batch(self, epoch: int, step: int, m: int, *, mix: bool) -> dict[str, Tensor]:
        """The micro-batch of a step: a pure function of the seed and these numbers."""
        positions = step * self._size + np.arange(self._size)
        chosen = position_to_sample(self._seed, epoch, len(self._pictures.labels), positions)
        with seeded(self._seed, "augmentation", epoch, step, m):
            return self._batch(list(self._pictures.images[chosen]), self._pictures.labels[chosen], mix=mix)


@dataclass(frozen=True)
class Configuration:
    """One row of a claim's table."""

    train: Train
    pictures: Pictures
    teacher: str | None = None
    """The configuration whose model of the same seed teaches this one."""


@dataclass(frozen=True)
class Gap:
    """A difference of two accuracies in points, what was published of it, and what it must be here."""

    plus: Term
    minus: Term
    at_least: float | None = None
    """Bound of the mean over seeds; None is reported without a verdict."""
    each_above: float | None = None
    """Bound of every single seed."""
    published: float | None = None

    def holds(self, values: Sequence[float]) -> bool | None:
        """Whether the values, one per seed, keep the bounds; None where there is none."""
        if self.at_least is None:
            return None
        return statistics.mean(values) >= self.at_least and (self.each_above is None or min(values) > self.each_above)


class Trials:
    """The pairs of one benchmark: trained where they are not finished, and read where they are."""

    def __init__(
        self, configurations: Mapping[str, Configuration], test: Pictures, *, results: Path, device: str
    ) -> None:
        self._configurations, self._test = configurations, test
        self._results, self._device = results, device
        self._protocols = {name: self._protocol(name) for name in configurations}
        self.lines = self._read()

    def run(self, seeds: Sequence[int]) -> None:
        """Train and score every pair that is not finished, all configurations of one seed before the next."""
        for seed in seeds:
            for name in self._configurations:
                if (name, seed) not in self.lines:
                    self._finish(name, seed)

    def summary(self, gaps: Mapping[str, Gap], seeds: Sequence[int]) -> dict[str, Any]:
        """Means and spreads over the seeds, the gaps with their verdicts; ``holds`` is None for fewer than 3 seeds."""
        found = {name: [self.lines[name, seed]["scores"] for seed in seeds] for name in self._configurations}
        told = {name: _told(gap, found) for name, gap in gaps.items()}
        verdicts = [entry["holds"] for entry in told.values() if entry["holds"] is not None]
        return {
            "accuracy": {name: _accuracies(rows) for name, rows in found.items()},
            "gaps": told,
            "seeds": list(seeds),
            "longest": {
                unit: max(self.lines[name, seed][unit] for name in found for seed in seeds)
                for unit in ("seconds", "cpu_seconds")
            },
            "holds": all(verdicts) if len(seeds) >= SEEDS_NEEDED else None,
        }

    def _finish(self, name: str, seed: int) -> None:
        taught = self._configurations[name].teacher
        teachers = {"teacher": self._trained(taught, seed, teachers={})} if taught else {}
        start, start_cpu = time.perf_counter(), time.process_time()
        model = self._trained(name, seed, teachers=teachers)
        line = {
            "configuration": name,
            "seed": seed,
            "protocol": self._protocols[name],
            "scores": self._scores(model, self._configurations[name]),
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(time.process_time() - start_cpu, 1),
        }
        with self._results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.lines[name, seed] = line
        print(f"{name}, seed {seed}: {line['scores']} in {line['seconds']} s", flush=True)
        if name not in {other.teacher for other in self._configurations.values()}:
            shutil.rmtree(self._checkpoints(name, seed))

    def _trained(self, name: str, seed: int, *, teachers: Mapping[str, nn.Module]) -> nn.Module:
        """The model of a pair; one that was trained before comes from its last checkpoint."""
        pictures, config = self._configurations[name].pictures, self._configurations[name].train
        resources = Resources(
            launcher="local",
            workers=1,
            threads=THREADS,
            mode="exact" if self._device == "cpu" else "fast",
            device=self._device,
            checkpoint_seconds=60,
        )
        with arithmetic(threads=THREADS, exact=resources.mode == "exact"):
            with seeded(seed, "initial weights"):
                model = build_model(config.model, classes=len(pictures.counts))
            with seeded(seed, "objective"):
                objective = build_objective(config.objective, model=model, teachers=teachers, counts=pictures.counts)
            fit(
                model,
                objective,
                PictureStream(pictures, config, seed),
                config,
                seed=seed,
                comm=Comm.single(),
                checkpoints=self._checkpoints(name, seed),
                resources=resources,
                report=lambda **_: None,
                key=self._protocols[name],
            )
        return model.eval()

    @torch.inference_mode()
    def _scores(self, model: nn.Module, configuration: Configuration) -> Scores:
        batch, test = TASK.eval_batch(configuration.train.preprocessing), self._test
        parts: dict[str, list[Tensor]] = {}
        for start in range(0, len(test.labels), 500):
            chosen = slice(start, start + 500)
            images = batch(list(test.images[chosen]), test.labels[chosen])["input"].to(self._device)
            for head, logits in heads(model, images).items():
                parts.setdefault(head, []).append(logits.cpu())
        found = {head: self._score(torch.cat(logits), configuration) for head, logits in parts.items()}
        return {head: {group: entry[group] for group in GROUPS if group in entry} for head, entry in found.items()}

    def _score(self, logits: Tensor, configuration: Configuration) -> dict[str, Any]:
        counts, targets = configuration.pictures.counts, torch.from_numpy(self._test.labels)
        boundaries = (3, 7) if len(set(counts)) > 1 else None  # the official groups of CIFAR-10-LT
        return score(logits, targets, train_counts=counts, boundaries=boundaries)

    def _protocol(self, name: str) -> str:
        configuration = self._configurations[name]
        said = {
            "train": configuration.train.parameters(),
            "pictures": [*configuration.pictures.images.shape, *configuration.pictures.counts],
            "teacher": configuration.teacher and self._protocol(configuration.teacher),
            "device": self._device,
        }
        return canonical.digest(said)

    def _checkpoints(self, name: str, seed: int) -> Path:
        return self._results.with_suffix(".checkpoints") / f"{name.replace(' ', '_')}-{seed}"

    def _read(self) -> dict[tuple[str, int], dict[str, Any]]:
        lines: dict[tuple[str, int], dict[str, Any]] = {}
        text = self._results.read_text() if self._results.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            print(f"{self._results}: the last line was cut off while it was written, its pair is scored again")
            self._results.write_text(whole)
        for number, row in enumerate(whole.splitlines(), start=1):
            line = json.loads(row)
            if self._protocols.get(line["configuration"]) != line["protocol"]:
                sys.exit(f"{self._results}:{number} was measured under another protocol: take another --results")
            lines[line["configuration"], line["seed"]] = line
        return lines


def _accuracies(rows: Sequence[Scores]) -> dict[str, dict[str, list[float]]]:
    """Head -> group -> [mean, standard deviation] over seeds."""
    return {
        head: {group: _mean_and_spread([row[head][group] for row in rows]) for group in rows[0][head]}
        for head in rows[0]
    }


def _told(gap: Gap, found: Mapping[str, Sequence[Scores]]) -> dict[str, Any]:
    plus, minus = ([row[head][group] for row in found[name]] for name, head, group in (gap.plus, gap.minus))
    values = [round(one - other, 4) for one, other in zip(plus, minus, strict=True)]
    mean, spread = _mean_and_spread(values)
    bound = {"mean": gap.at_least, "each_above": gap.each_above}
    told = {"mean": mean, "spread": spread, "values": values, "published": gap.published}
    return told | {"bound": bound, "holds": gap.holds(values)}


def _mean_and_spread(values: Sequence[float]) -> list[float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return [round(statistics.mean(values), 2), round(spread, 2)]


def show(summary: Mapping[str, Any]) -> None:
    """Print accuracies and gaps as tables."""
    print(f"\naccuracy in percent over seeds {summary['seeds']}, mean +- standard deviation")
    for name, by_head in summary["accuracy"].items():
        for head, groups in by_head.items():
            cells = "  ".join(f"{group} {mean:5.2f} +- {spread:.2f}" for group, (mean, spread) in groups.items())
            print(f"{name:28} {head:5} {cells}")
    print("\ndifference in points, mean +- standard deviation, as published, bound, held")
    for name, told in summary["gaps"].items():
        verdict = {None: "no verdict", True: "holds", False: "does not hold"}[told["holds"]]
        bound = ", ".join(f"{key} {value}" for key, value in told["bound"].items() if value is not None)
        print(f"{name:28} {told['mean']:+6.2f} +- {told['spread']:.2f}  {told['published']}  {bound}  {verdict}")


def finish(summary: Mapping[str, Any]) -> None:
    """Print tables and the figures as JSON; exit code 1 where a bound is not held."""
    show(summary)
    print(json.dumps(summary))
    sys.exit(1 if summary["holds"] is False else 0)
