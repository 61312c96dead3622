"""Code digests of the data stages, for DVC: it sees files and parameters, never code.

Law: ``data/stages.json`` is a pure function of the datasets, the code and the library versions; it changes exactly when
a data stage has to run again for a reason that DVC cannot see.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from vitops.config.datasets import Dataset
from vitops.config.load import load
from vitops.plan.code.definitions import Package
from vitops.plan.code.digest import code_digest, vitops_package
from vitops.plan.key import library_version
from vitops.plan.stages import data_roots, libraries
from vitops.store import canonical
from vitops.store.stat_memo import StatMemo

FILE = "data/stages.json"
"""Relative to the project root; tracked by git, read by dvc.yaml as parameters."""

Digests = dict[str, dict[str, str]]


def digests(
    datasets: Mapping[str, Dataset], memo: StatMemo | None = None, *, package: Package | None = None
) -> Digests:
    """Dataset -> ``ingest``, ``validate``, ``split`` -> digest over the reached code and the library versions."""
    package = package or vitops_package(memo)
    found: Digests = {}
    for name, dataset in datasets.items():
        found[name] = {}
        for kind, roots in data_roots(dataset, dataset.splits).items():
            versions = {library: library_version(library) for library in libraries(kind)}
            code = code_digest(roots, package=package).digest
            found[name][kind] = canonical.digest({"code": code, "libraries": versions})
    return found


def stale(root: Path, name: str, dataset: Dataset, package: Package) -> set[str]:
    """Kinds of stages of one dataset whose digest in ``data/stages.json`` is not that of their code now."""
    written = (_read(root) or {}).get(name, {})
    current = digests({name: dataset}, package=package)[name]
    return {kind for kind, digest in current.items() if written.get(kind) != digest}


def write(root: Path, memo: StatMemo | None = None) -> bool:
    """Bring ``data/stages.json`` of the project at ``root`` up to date; True if it had to change. Raises UsageError."""
    current = digests(load(root).datasets, memo)
    if _read(root) == current:
        return False
    (root / FILE).parent.mkdir(parents=True, exist_ok=True)
    canonical.write_json(root / FILE, current)
    return True


def fresh(root: Path, memo: StatMemo | None = None) -> bool:
    """Whether ``data/stages.json`` says what configuration and code are now. Raises UsageError."""
    return _read(root) == digests(load(root).datasets, memo)


def _read(root: Path) -> Digests | None:
    try:
        document = json.loads((root / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(document, dict) and all(isinstance(entry, dict) for entry in document.values())
    return document if whole else None
