"""The configuration of each data stage as a small file that DVC tracks, written from pipelines.yaml by one cheap stage.

Why: DVC can track a key of pipelines.yaml only if it is there, and most keys have defaults. ``configure`` writes each
stage's resolved section, defaults included, to a file of its own; a stage depends on its file and reads nothing else:
changing a gate runs ``validate`` alone, and spelling out a default runs nothing.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from vitops.config.base import Section
from vitops.config.datasets import Dataset, Gates, Name, Source, Split, Task
from vitops.errors import VitopsError
from vitops.store import canonical, durable

S = TypeVar("S", bound=Section)


class IngestConfig(Section):
    """What ``arrive`` and ``ingest`` read."""

    task: Task
    source: Source
    shard_size: int


class ValidateConfig(Section):
    """What ``validate`` reads."""

    task: Task
    gates: Gates


class SplitConfig(Section):
    """What ``split`` reads."""

    task: Task
    splits: dict[Name, Split]


def resolved(dataset: Dataset) -> dict[str, Section]:
    """The sections of a dataset by stage: ``ingest``, ``validate``, ``split``."""
    return {
        "ingest": IngestConfig(task=dataset.task, source=dataset.source, shard_size=dataset.shard_size),
        "validate": ValidateConfig(task=dataset.task, gates=dataset.gates),
        "split": SplitConfig(task=dataset.task, splits=dataset.splits),
    }


def path(folder: Path, stage: str) -> Path:
    """The file of a stage in the dataset's folder."""
    return folder / f"config-{stage}.json"


def render(section: Section) -> bytes:
    """The bytes of a section's file."""
    return canonical.pretty(section.parameters())


def write(folder: Path, dataset: Dataset) -> None:
    """Write the three files into the dataset's folder."""
    durable.make_folder(folder)
    for stage, section in resolved(dataset).items():
        durable.write_bytes(path(folder, stage), render(section))


def read(folder: Path, stage: str, kind: type[S]) -> S:
    """The section a stage reads. Raises VitopsError when ``configure`` has not written it."""
    file = path(folder, stage)
    try:
        return kind.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise VitopsError(
            f"{folder.name}/{file.name} is missing or unreadable: `dvc repro configure@{folder.name}` writes it"
        ) from error


def changed(written: bytes, section: Section) -> list[str]:
    """The dotted keys whose values differ between a section's file and the section; none if the file is unreadable."""
    try:
        old = json.loads(written)
    except ValueError:
        return []
    return list(_different_keys(old, section.parameters(), ""))


def _different_keys(old: Any, new: Any, prefix: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _different_keys(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield prefix
