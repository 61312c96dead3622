"""The contract between a stage's library function and whoever runs it.

A stage function takes one ``Job`` and fills ``job.out``; it returns an ``Outcome``. It reads nothing but the job's
inputs and parameters, so that its output is a function of the stage key. Neither knows Prefect or the ledger.
"""

import json
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vitops.store import durable


class Position(BaseModel):
    """A place in a training: both counted from 0."""

    model_config = ConfigDict(frozen=True)
    epoch: int
    step: int


class Work(BaseModel):
    """An amount of training: optimizer steps, and the seconds they took."""

    model_config = ConfigDict(frozen=True)
    steps: int
    seconds: float


class Outcome(BaseModel):
    """What the receipt says about an execution beyond its bytes."""

    model_config = ConfigDict(frozen=True)
    resumed_from: Position | None = None
    work_lost: Work | None = None
    """What the killed training had done beyond ``resumed_from``, as it last noted; it was done again."""
    facts: dict[str, Any] = Field(default_factory=dict)


class Job(BaseModel):
    """One execution of one stage."""

    model_config = ConfigDict(frozen=True)

    stage: str
    """Name of the stage, e.g. ``student``."""
    key: str
    """Stage key, 64 hex digits."""
    parameters: dict[str, Any]
    """Resolved parameters as canonical JSON; the stage function validates them with its configuration class."""
    inputs: dict[str, Path]
    """Input role -> folder with that artifact's files (read-only)."""
    digests: dict[str, str] = Field(default_factory=dict)
    """Input role -> digest of that artifact."""
    file: Path | None = None
    """A file that the stage reads beside its inputs; its digest is among the parameters."""
    out: Path
    """Empty folder that becomes the artifact."""
    checkpoints: Path
    """Folder that survives the process, private to this key."""
    shared_checkpoints: str | None = None
    """URL where the checkpoints of this key lie for other machines; None if the store is the local folder alone."""
    caches: Path | None = None
    """Folder for what may be lost and is computed again, shared by all stages; None where nothing is to be kept."""
    progress: Path | None = None
    """JSON file that is replaced atomically as the stage advances."""
    stop: Path | None = None
    """A file that appears when the stage should save its work and raise ``Interrupted``."""
    resources: dict[str, Any] = Field(default_factory=dict)
    """The pipeline's ``resources`` section."""
    allow_environment_change: bool = False
    """Whether a training may go on from a checkpoint that was written under another arithmetic."""

    def stopping(self) -> bool:
        """True once somebody asked this run to stop."""
        return self.stop is not None and self.stop.exists()

    def report(self, **values: Any) -> None:
        """Replace the progress file by ``{"stage", "time", **values}``; VitopsError naming it when the disk is full."""
        if self.progress is not None:
            document = {"stage": self.stage, "time": time.time(), **values}
            durable.write_bytes(self.progress, json.dumps(document).encode(), sync=False)
