"""The record of one run: ``runs/<id>/run.json``, replaced atomically after every change.

It tells the console, the report and a later reader what each stage came to. It is no evidence (receipts are): it may be
lost without harm.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vitops.plan.stages import Stage
from vitops.store import durable


class RunRecord:
    """Status of every stage of one run."""

    def __init__(
        self, folder: Path, *, pipeline: str, stages: Sequence[Stage], configuration: Mapping[str, Any]
    ) -> None:
        """``configuration``: the resolved sections of the run (``plan.recorded``)."""
        self.folder = durable.make_folder(folder)
        self.pipeline = pipeline
        self.configuration = dict(configuration)
        self.stages: dict[str, dict[str, Any]] = {
            stage.name: {
                "name": stage.name,
                "kind": stage.kind,
                "exactness": stage.exactness,
                "key": None,
                "status": "pending",
                "digest": None,
                "seconds": None,
                "resumed_from": None,
                "work_lost": None,
                "inputs": dict(stage.inputs),
            }
            for stage in stages
        }
        self._write()

    def update(self, stage: str, **values: Any) -> None:
        """Set fields of one stage and write the record."""
        self.stages[stage].update(values)
        self._write()

    def _write(self) -> None:
        document = {"pipeline": self.pipeline, "pid": os.getpid(), "configuration": self.configuration}
        document["stages"] = list(self.stages.values())
        write_atomically(self.folder / "run.json", document)


class StageRecord(BaseModel):
    """One stage of ``run.json``: what it came to so far."""

    name: str
    status: str
    key: str | None = None
    digest: str | None = None

    @property
    def done(self) -> bool:
        """Whether it has its result."""
        return self.status in {"hit", "executed"}


class RunFile(BaseModel):
    """What a later reader takes from ``run.json``."""

    stages: tuple[StageRecord, ...] = ()
    configuration: dict[str, Any] | None = None


def new_run_id() -> str:
    """A folder name that sorts by time."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"


def write_atomically(path: Path, document: dict[str, Any]) -> None:
    """Replace a small JSON file so that a reader sees the old or the new one, never half.

    Raises VitopsError when the disk does not take it.
    """
    durable.write_bytes(path, json.dumps(document, indent=1).encode(), sync=False)


def read_record(path: Path) -> dict[str, Any] | None:
    """The document at ``path``, or None while it does not exist."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return document
