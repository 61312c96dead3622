"""The versions of a dataset: is a data stage's output what DVC finds unchanged, and bring it up to date if not.

Laws: a stage is unchanged exactly when DVC finds it so, its resolved configuration is the recorded one, and its bytes
are what our SHA-256 manifest says (DVC does not notice a flipped byte); an output that is merely missing counts as
unchanged if every byte of it can be restored; one that is altered is executed again. An unchanged stage is never
executed, a changed one always is. While no stat record has moved since DVC was last asked, DVC is not asked again.
Imports nothing heavy: DVC runs as a child process, and only when needed.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vitops.config.load import load, store_home
from vitops.data import source_file
from vitops.data.dvc_process import Say
from vitops.data.plane import OUTPUT, STAGES, Plane, Verdict
from vitops.errors import VerificationError
from vitops.store import canonical, durable, manifest
from vitops.store.stat_memo import StatMemo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataStatus:
    """The verdict on one data stage."""

    unchanged: bool
    digest: str | None
    """Digest of the output by its manifest; None unless unchanged."""
    reason: str


def folder(root: Path, dataset: str, stage: str, split: str) -> Path:
    """Where a data stage's output for this split lies."""
    output = root / "data" / dataset / OUTPUT[stage]
    return output / split if stage == "split" else output


def status(root: Path, dataset: str, split: str, memo: StatMemo) -> dict[str, DataStatus]:
    """The verdict on ``ingest``, ``validate`` and ``split``. Raises UsageError or VitopsError where DVC cannot answer.

    It follows the code digests in data/stages.json; whether those are fresh is for the caller to say.
    """
    verdicts = Plane(root, dataset, memo).verdicts()
    memo.save()
    return {stage: _for_split(verdicts[stage], stage, split) for stage in STAGES}


def bring(
    root: Path,
    dataset: str,
    split: str,
    stage: str,
    *,
    memo: StatMemo | None = None,
    say: Say = log.info,
) -> tuple[str, bool]:
    """Bring one data stage up to date; its inputs must be. Returns (digest, whether it was executed).

    ``say`` gets DVC's and the stage's lines as they come. Raises the stage's own VitopsError or UsageError.
    """
    memo = memo or StatMemo(store_home(root) / "cache")
    with _alone(root, dataset):
        plane = Plane(root, dataset, memo)
        source_file.locate(root, dataset, plane.config.source)
        verdict = plane.verdicts()[stage]
        known = _for_split(verdict, stage, split)
        if not known.unchanged:
            plane.execute(stage, say=say)
        elif verdict.missing:
            plane.restore(stage, say=say)
        found = digest(root, dataset, stage, split, memo=memo)
        if known.unchanged and found != known.digest:
            raise VerificationError(f"{folder(root, dataset, stage, split)} changed while it was read: run again")
        if verdict.missing or not known.unchanged:
            _remember(root, dataset, memo)
        return found, not known.unchanged


def digest(root: Path, dataset: str, stage: str, split: str, *, memo: StatMemo | None = None) -> str:
    """Digest of a data stage's output, its files hashed unless ``memo`` has them. Raises VerificationError."""
    hash_file: Callable[[Path], str] = canonical.sha256_file
    if memo is not None:
        remembered = memo
        hash_file = lambda path: source_file.hashed(path, remembered)  # noqa: E731
    return manifest.check(folder(root, dataset, stage, split), hash_file=hash_file)


def source_digest(root: Path, dataset: str, memo: StatMemo) -> str:
    """SHA-256 of the source: of its file, or of the list of its files. Raises UsageError where it is missing."""
    source = load(root).dataset(dataset).source
    return source_file.digest(source_file.locate(root, dataset, source), memo)


def _for_split(verdict: Verdict, stage: str, split: str) -> DataStatus:
    found = verdict.digests.get(split if stage == "split" else ".")
    if verdict.reason or found is None:
        return DataStatus(False, None, verdict.reason or f"split {split} was never made here")
    return DataStatus(True, found, "can be restored" if verdict.missing else "unchanged")


def _remember(root: Path, dataset: str, memo: StatMemo) -> None:
    """Ask DVC once more so that the next plan need not; a record counts only some clock ticks after the last write."""
    time.sleep(0.03)
    Plane(root, dataset, memo).verdicts()
    memo.save()


@contextmanager
def _alone(root: Path, dataset: str) -> Iterator[None]:
    """One process at a time brings a dataset up to date; the others then find it done."""
    durable.make_folder(root / ".dvc" / "tmp")
    with durable.locked(root / ".dvc" / "tmp" / f"vitops-{dataset}.lock"):
        yield
