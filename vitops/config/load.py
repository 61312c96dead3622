"""pipelines.yaml, from text to validated sections.

Laws: a pipeline is its base mapping, overlaid by one profile, overlaid by the ``--set`` values in order; only the
pipeline that is asked for is validated. ``datasets:`` always comes from the root's own pipelines.yaml and nothing may
change it: DVC reads that file, and would not see a change made anywhere else.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vitops.config.datasets import NAME_PATTERN, Dataset
from vitops.config.merge import Tree
from vitops.config.pipelines import AnyPipeline, Project
from vitops.config.problems import NAME_RULE, describe, did_you_mean, located
from vitops.config.yaml_lines import KeyPath, parse, read
from vitops.errors import UsageError

FILE = "pipelines.yaml"
DEFAULT_PROFILE = "quick"


def find_root(start: Path) -> Path:
    """The nearest folder at or above ``start`` that holds pipelines.yaml. Raises UsageError where there is none."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder
    raise UsageError(f"{start}: no {FILE} here or in a folder above; change into a project first")


def store_home(root: Path) -> Path:
    """The store's folder: ``VITOPS_HOME``, or ``.vitops`` in the project."""
    chosen = os.environ.get("VITOPS_HOME")
    return Path(chosen).expanduser().absolute() if chosen else root / ".vitops"


@dataclass(frozen=True)
class Loaded:
    """A read pipelines.yaml: its datasets validated, its pipelines on request."""

    root: Path
    file: str
    """The file with the pipelines, as messages name it."""
    datasets: dict[str, Dataset]
    trees: dict[str, Tree]
    """Pipelines as written, with their profiles."""
    profile: str | None
    overrides: tuple[Tree, ...]
    """What is laid over the pipeline that is asked for."""

    @property
    def names(self) -> tuple[str, ...]:
        """The pipelines, in the file's order."""
        return tuple(self.trees)

    def dataset(self, name: str) -> Dataset:
        """One dataset. Raises UsageError for an unknown name."""
        if name not in self.datasets:
            raise UsageError(f"{FILE}: datasets: has no '{name}'{did_you_mean(name, self.datasets)}")
        return self.datasets[name]

    def profiles(self, name: str) -> tuple[str, ...]:
        """The profiles of one pipeline, in the file's order."""
        return tuple(_profiles(self._written(name), name))

    def pipeline(self, name: str) -> AnyPipeline:
        """One pipeline with its profile and the overrides. Raises UsageError."""
        tree = self._with_profile(name, self.profile)
        for override in self.overrides:
            tree = tree.overlaid(override)
        return self._validated(name, tree)

    def only(self, name: str) -> Project:
        """All datasets and this one pipeline, as ``pipeline`` gives it. Raises UsageError."""
        return Project(datasets=self.datasets, pipelines={name: self.pipeline(name)})

    def every(self) -> Project:
        """All pipelines, without overrides: the selected profile where a pipeline has it, its default elsewhere."""
        pipelines = {}
        for name in self.names:
            wanted = self.profile if self.profile in self.profiles(name) else None
            pipelines[name] = self._validated(name, self._with_profile(name, wanted))
        return Project(datasets=self.datasets, pipelines=pipelines)

    def check(self) -> None:
        """Validate every pipeline with every one of its profiles. Raises UsageError at the first that is wrong."""
        for name in self.names:
            for profile in (None, *self.profiles(name)):
                self._validated(name, self._with_profile(name, profile))

    def _written(self, name: str) -> Tree:
        if name not in self.trees:
            raise UsageError(f"{self.file}: no pipeline '{name}'{did_you_mean(name, self.trees)}")
        return self.trees[name]

    def _with_profile(self, name: str, profile: str | None) -> Tree:
        tree = self._written(name)
        profiles = _profiles(tree, name)
        if profile is not None and profile not in profiles:
            known = f"it has {', '.join(profiles)}" if profiles else "it has none"
            raise UsageError(f"{tree.place(())}: pipelines.{name}: no profile '{profile}'; {known}")
        chosen = profiles.get(profile or DEFAULT_PROFILE)
        base = tree.without("profiles")
        return base.overlaid(chosen) if chosen else base

    def _validated(self, name: str, tree: Tree) -> AnyPipeline:
        below: KeyPath = ("pipelines", name)
        pipeline: AnyPipeline = _validate(AnyPipeline, tree, below)
        if pipeline.dataset not in self.datasets:
            message = f"no dataset '{pipeline.dataset}'{did_you_mean(pipeline.dataset, self.datasets)}"
            raise UsageError(located(tree, ("dataset",), message, below=below))
        splits = self.datasets[pipeline.dataset].splits
        if pipeline.split not in splits:
            message = f"dataset '{pipeline.dataset}' has no split '{pipeline.split}'"
            raise UsageError(located(tree, ("split",), message + did_you_mean(pipeline.split, splits), below=below))
        return pipeline


def load(
    root: Path,
    *,
    file: Path | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    workers: int | None = None,
) -> Loaded:
    """Read ``root``'s pipelines.yaml, or the pipelines of ``file`` beside its datasets.

    ``profile`` applies to the pipeline that is asked for; ``overrides`` are ``a.b=c`` with a key path inside it and a
    value in YAML, and ``workers`` is a last one for resources.workers. Raises UsageError, one line for each problem,
    with file, line and key.
    """
    main = _top(root / FILE, keys=("datasets", "pipelines"))
    other = main
    if file is not None and file.resolve() != (root / FILE).resolve():
        other = _top(file, keys=("pipelines",))
        _same_datasets(main, other)
    laid = [_override(override) for override in overrides]
    if workers is not None:
        laid.append(_laid(("resources", "workers"), workers, shown=f"--workers {workers}"))
    datasets: dict[str, Dataset] = _validate(dict[str, Dataset], main.under(("datasets",)), ("datasets",))
    written = other.under(("pipelines",))
    trees = {name: written.under((name,)) for name in written.value}
    return Loaded(root, _shown(file or root / FILE), datasets, trees, profile, tuple(laid))


def _top(path: Path, *, keys: Sequence[str]) -> Tree:
    """The file with the mappings of names that it must hold. ``datasets`` and ``pipelines`` are all it may hold."""
    shown = _shown(path)
    tree = Tree.of(read(path, name=shown))
    if not isinstance(tree.value, dict):
        raise UsageError(f"{shown}: must hold the mappings {' and '.join(f'{key}:' for key in keys)}")
    for key in tree.value:
        if key not in {"datasets", "pipelines"}:
            known = did_you_mean(key, ("datasets", "pipelines"))
            raise UsageError(located(tree, (key,), f"unknown key '{key}'{known}"))
    for key in keys:
        if key not in tree.value:
            raise UsageError(f"{shown}: the key '{key}' is missing")
    for key in tree.value:
        _check_names(tree, key)
    return tree


def _check_names(tree: Tree, key: str) -> None:
    named = tree.value[key]
    if not isinstance(named, dict):
        raise UsageError(located(tree, (key,), "must be a mapping of names"))
    for name, value in named.items():
        if not re.fullmatch(NAME_PATTERN, name):
            raise UsageError(located(tree, (key, name), NAME_RULE))
        if not isinstance(value, dict):
            raise UsageError(located(tree, (key, name), "must be a mapping (key: value)"))


def _same_datasets(main: Tree, other: Tree) -> None:
    if "datasets" not in other.value:
        return
    path = _first_difference(main.value["datasets"], other.value["datasets"], ("datasets",))
    if path:
        message = f"another file may not change datasets: DVC reads them from the root's {FILE}; edit that file"
        raise UsageError(located(other, path, message))


def _first_difference(one: Any, two: Any, path: KeyPath) -> KeyPath | None:
    if isinstance(one, dict) and isinstance(two, dict):
        for key in (*two, *one):
            if key not in one or key not in two:
                return (*path, key)
            if found := _first_difference(one[key], two[key], (*path, key)):
                return found
        return None
    return None if (type(one), one) == (type(two), two) else path


def _profiles(tree: Tree, name: str) -> dict[str, Tree]:
    written = tree.value.get("profiles") or {}
    below: KeyPath = ("pipelines", name)
    if not isinstance(written, dict):
        raise UsageError(located(tree, ("profiles",), "must be a mapping of names", below=below))
    profiles = {}
    for profile, values in written.items():
        path: KeyPath = ("profiles", profile)
        if values is not None and not isinstance(values, dict):
            raise UsageError(located(tree, path, "must be a mapping (key: value)", below=below))
        if values and "datasets" in values:
            message = f"a profile may not change datasets: DVC reads them from {FILE} alone"
            raise UsageError(located(tree, (*path, "datasets"), message, below=below))
        profiles[profile] = tree.under(path) if values else Tree({}, {})
    return profiles


def _override(text: str) -> Tree:
    """The tree that ``--set a.b=c`` lays over a pipeline."""
    shown = f"--set {text}"
    dotted, equals, value = text.partition("=")
    keys = tuple(dotted.strip().split("."))
    if not equals or not all(keys):
        raise UsageError(f"{shown}: must read key.path=value, e.g. teacher.epochs=3")
    if keys[0] == "datasets":
        raise UsageError(f"{shown}: {'.'.join(keys)}: --set may not change datasets: DVC reads them from {FILE} alone")
    if keys[0] == "profiles":
        raise UsageError(f"{shown}: {'.'.join(keys)}: a profile is chosen with --profile, not changed with --set")
    try:
        parsed = parse(value, name="value").value
    except UsageError as error:
        raise UsageError(f"{shown}: {str(error).partition(': ')[2]}") from None
    return _laid(keys, parsed, shown=shown)


def _laid(keys: tuple[str, ...], value: Any, *, shown: str) -> Tree:
    """The tree with ``value`` alone, which messages call ``shown``."""
    for key in reversed(keys):
        value = {key: value}
    return Tree(value, {keys[:end]: shown for end in range(len(keys) + 1)})


def _validate(annotation: Any, tree: Tree, below: KeyPath) -> Any:
    """Strictly, as JSON: a list is a tuple, a whole number may be a float, and nothing else is converted."""
    try:
        return _adapter(annotation).validate_json(json.dumps(tree.value), strict=True)
    except ValidationError as error:
        raise UsageError(describe(error, tree, annotation, below=below)) from None


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _shown(path: Path) -> str:
    """The path as a user in this folder would type it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
