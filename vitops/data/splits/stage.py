"""``split``: index files only. Each named split is a folder of its own with its own digest; no image is ever copied.

Laws: nothing in a split's folder depends on samples it did not select, on another split, or on the gates; train, val
and test are disjoint and every class is trained and tested on, or nothing is published.
"""

import hashlib
import json
import pkgutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitops.config.datasets import HoldoutSplit, LongtailSplit
from vitops.data import outputs, table
from vitops.data.configured import SplitConfig
from vitops.data.splits.members import Members, Population
from vitops.errors import UsageError, VitopsError
from vitops.store import canonical, manifest

AnySplit = HoldoutSplit | LongtailSplit
Select = Callable[..., Members]


def split(shards: Path, config: SplitConfig, *, dataset: str, out: Path) -> None:
    """Write ``<out>/<name>/{train,val,test}.parquet``, ``split.json`` and ``manifest.json`` for every named split."""
    population = read_population(shards)
    with outputs.replaced(out) as folder:
        for name, section in config.splits.items():
            members = select(section, population, dataset=dataset, name=name)
            _write(folder / name, members, population, facts=_facts(section, config, dataset, name))


def read_population(shards: Path) -> Population:
    """The live samples of a dataset version."""
    classes = json.loads((shards / "dataset.json").read_bytes())["classes"]
    rows = table.read(shards / "samples.parquet", ["slot", "label", "sha256", "subset"])
    digests = np.frombuffer(table.unhex(rows["sha256"]), dtype=np.uint8)
    return Population(
        slots=rows["slot"].to_numpy(),
        labels=rows["label"].to_numpy(),
        digests=digests.reshape(-1, 32),
        subsets=np.array(rows["subset"].to_pylist(), dtype=np.str_),
        classes=tuple(classes),
    )


def select(section: AnySplit, population: Population, *, dataset: str, name: str) -> Members:
    """The members that a split's section selects. Raises UsageError that names the split's key in pipelines.yaml."""
    selection: Select = pkgutil.resolve_name(section.implementation)
    try:
        members = selection(section, population, name=name)
        _refuse_gaps(members, population)
    except UsageError as error:
        raise UsageError(f"pipelines.yaml: datasets.{dataset}.splits.{name}: {error}") from error
    _check_disjoint(members, name)
    return members


def _refuse_gaps(members: Members, population: Population) -> None:
    sizes = np.bincount(population.labels[members.train], minlength=len(population.classes))
    if not sizes.all():
        raise UsageError(
            f"class {population.classes[int(np.argmin(sizes))]!r} would get 0 training samples: "
            "add images of it, or let the split leave fewer out"
        )
    if not len(members.val):
        raise UsageError(
            "nothing is left out for validation, which gates and calibration read: set n_max below the class sizes"
        )


def _check_disjoint(members: Members, name: str) -> None:
    everything = np.concatenate([members.train, members.val, members.test])
    if len(np.unique(everything)) != len(everything):
        raise VitopsError(f"split {name}: train, val and test share samples: this is a defect of its selection")


def _facts(section: AnySplit, config: SplitConfig, dataset: str, name: str) -> dict[str, Any]:
    return {
        "config": section.parameters(),
        "dataset": dataset,
        "kind": section.kind,
        "seed": section.seed,
        "split": name,
        "task": config.task,
    }


def _write(folder: Path, members: Members, population: Population, *, facts: dict[str, Any]) -> None:
    folder.mkdir()
    facts = {**facts, "classes": list(population.classes), "members": {}}
    for subset in (field.name for field in fields(members)):
        positions = getattr(members, subset)
        columns = {"slot": population.slots[positions], "label": population.labels[positions]}
        table.write(folder / f"{subset}.parquet", columns, table.INDEX)
        facts[f"{subset}_counts"] = _counts(population, positions)
        facts["members"][subset] = hashlib.sha256(population.digests[positions].tobytes()).hexdigest()
    canonical.write_json(folder / "split.json", facts)
    manifest.write(folder)


def _counts(population: Population, positions: NDArray[np.int64]) -> list[int]:
    counts: list[int] = np.bincount(population.labels[positions], minlength=len(population.classes)).tolist()
    return counts
