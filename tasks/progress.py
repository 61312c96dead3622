"""A stage's ``progress.json``, shown while it runs as a progress artifact in the Prefect UI."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.telling import tell
from vitops.plan.record import read_record

SECONDS_BETWEEN_UPDATES = 2.0


@contextmanager
def progress_artifact(stage: str, file: Path) -> Iterator[None]:
    """Create the artifact, follow ``file`` in a thread for the block, end at 100 if the block succeeds."""
    key = re.sub("[^a-z0-9-]", "-", stage.lower())
    artifact = tell(create_progress_artifact, 0.0, key=key, description=f"Stage {stage}")
    if not isinstance(artifact, UUID):
        yield
        return
    done = threading.Event()
    follower = threading.Thread(target=_follow, args=(artifact, stage, file, done), daemon=True)
    follower.start()
    try:
        yield
        tell(update_progress_artifact, artifact, 100.0)
    finally:
        done.set()
        follower.join()


def percent(progress: dict[str, Any]) -> float:
    """How much of a training is done, 0..100, from its ``epoch``, ``step``, ``epochs`` and ``steps``."""
    if not {"epoch", "step", "epochs", "steps"} <= progress.keys():
        return 0.0
    done = progress["epoch"] * progress["steps"] + progress["step"]
    return min(99.0, 100.0 * done / (progress["epochs"] * progress["steps"]))


def _follow(artifact: UUID, stage: str, file: Path, done: threading.Event) -> None:
    shown = 0.0
    while not done.wait(SECONDS_BETWEEN_UPDATES):
        progress = read_record(file)
        if progress is not None and progress.get("stage") == stage and percent(progress) != shown:
            shown = percent(progress)
            tell(update_progress_artifact, artifact, shown)
