"""Do the data folders hold what this project made? Their own manifests cannot say: who alters files may rewrite one.

Laws: a folder is vouched for by any receipt of its dataset, stage and split that names its digest (DVC may have brought
back an older version), or else by dvc.lock if it records the very bytes that are there (``dvc repro`` writes no
receipt); one that neither a receipt nor dvc.lock knows claims nothing. A single file (``arrivals.json``) is vouched for
by dvc.lock alone. A whole output that is not there is no problem,
for DVC brings it back; one that is there without its manifest is.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from vitops.errors import VerificationError
from vitops.lineage.receipts import DATA_KINDS, Receipt
from vitops.store import manifest

PATTERNS = ("data/*/shards", "data/*/gates", "data/*/splits/*")
WAY_OUT = "Run the pipeline again, or take DVC's copy with `dvc checkout --force`."
_FOLDERS = {"ingest": "shards", "validate": "gates", "split": "splits"}


def differences(root: Path, receipts: Iterable[Receipt]) -> Iterator[tuple[Path, str]]:
    """Every file below ``data/`` of the project that is not as it was made, with a sentence."""
    known, recorded = _known(receipts), _recorded(root)
    there = {folder.relative_to(root).as_posix() for one in PATTERNS for folder in root.glob(one) if folder.is_dir()}
    outputs: dict[str, list[str]] = {}
    for name in sorted(there | known.keys()):
        outputs.setdefault("/".join(name.split("/")[:3]), []).append(name)
    for output, names in outputs.items():
        if (root / output).is_dir():
            yield from _output(root, output, {name: known.get(name, {}) for name in names}, recorded.get(output))
    yield from _files(root, recorded)


def _files(root: Path, recorded: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """The outputs that are single files (``arrivals.json``, the configuration of each stage) against dvc.lock."""
    for output, md5 in sorted(recorded.items()):
        path = root / output
        if path.is_file() and _md5(path) != md5:
            yield path, f"not what dvc.lock records. {WAY_OUT}"


def _output(
    root: Path, output: str, folders: dict[str, dict[str, Receipt]], recorded: str | None
) -> Iterator[tuple[Path, str]]:
    """The problems of one output of DVC: one folder, or that of every split."""
    altered = [problem for name in folders for problem in _altered(root / name)]
    yield from altered
    doubts = {root / name / manifest.NAME: _doubt(root / name, known, recorded) for name, known in folders.items()}
    found = [(path, sentence) for path, sentence in doubts.items() if sentence]
    if not found and not altered and recorded is not None and not all(folders.values()):
        found = [(root / output, f"not what dvc.lock records. {WAY_OUT}")]
    if found and recorded != _dvc_md5(root / output):
        yield from found


def _altered(folder: Path) -> Iterator[tuple[Path, str]]:
    if (folder / manifest.NAME).is_file():
        yield from manifest.differences(folder)


def _doubt(folder: Path, known: dict[str, Receipt], recorded: str | None) -> str:
    """What speaks against the folder's manifest unless dvc.lock vouches for it; empty if nothing does."""
    claim = _claim(known) if known else "dvc.lock"
    if not (folder / manifest.NAME).is_file():
        return f"missing: {claim} names this folder. {WAY_OUT}" if known or recorded is not None else ""
    try:
        digest = manifest.digest(manifest.read(folder))
    except VerificationError:  # among what is altered
        return ""
    if not known or digest in known:
        return ""
    return f"rewritten: the folder now has the digest {digest}, {claim} has another. {WAY_OUT}"


def _known(receipts: Iterable[Receipt]) -> dict[str, dict[str, Receipt]]:
    """Folder -> digests that receipts know it by, the newest last."""
    known: dict[str, dict[str, Receipt]] = {}
    for receipt in receipts:
        dataset, split = receipt.parameters.get("dataset"), receipt.parameters.get("split", "")
        if receipt.kind in DATA_KINDS and dataset:
            name = f"data/{dataset}/{_FOLDERS[receipt.kind]}" + (f"/{split}" if split else "")
            versions = known.setdefault(name, {})
            versions.pop(receipt.digest, None)
            versions[receipt.digest] = receipt
    return known


def _claim(known: dict[str, Receipt]) -> str:
    newest = list(known.values())[-1]
    return f"receipt {newest.sequence} (stage {newest.stage} of {newest.pipeline})"


def _recorded(root: Path) -> dict[str, str]:
    """Output -> md5 that dvc.lock records; nothing where it is missing or unreadable, which every plan says."""
    try:
        stages: dict[str, Any] = yaml.safe_load((root / "dvc.lock").read_bytes())["stages"]
        outputs = [output for stage in stages.values() for output in stage.get("outs", [])]
        return {output["path"]: output.get("md5", "") for output in outputs}
    except (OSError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        return {}


def _dvc_md5(output: Path) -> str:
    """What DVC names a folder: the md5 of the sorted list of its files' md5."""
    files = {path.relative_to(output).as_posix(): path for path in output.rglob("*") if path.is_file()}
    listing = [{"md5": _md5(path), "relpath": name} for name, path in sorted(files.items())]
    return hashlib.md5(json.dumps(listing).encode()).hexdigest() + ".dir"


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
