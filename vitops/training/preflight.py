"""What only torch, timm and files can say about a configuration, asked before the first stage of a run is executed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from vitops.config.training import Train
from vitops.errors import UsageError
from vitops.losses.registry import build as build_objective
from vitops.models.pretrained import check_fit
from vitops.models.registry import build
from vitops.plan.stages import Stage
from vitops.plan.weights import brought
from vitops.training.convert import section

CLASSES = 3
"""The fewest that every objective takes."""


def check_models(pipeline: str, stages: Iterable[Stage], *, root: Path = Path()) -> None:
    """Build the architecture of every training stage without memory for its weights, and its objective on it.

    An objective with teachers waits for them. Weights from elsewhere are brought to this machine and compared with
    their model; ``root`` is the project's folder. Raises UsageError that names the key of an architecture that does not
    exist or refuses its arguments, of an objective that the model does not suit, or of weights that are missing, are
    others, or do not fit.
    """
    checks: dict[str, Callable[[Stage, str], None]] = {"train": _trains, "convert": partial(_converts, root=root)}
    for stage in stages:
        if stage.kind in checks:
            key = f"pipelines.{pipeline}.{stage.name}"
            try:
                checks[stage.kind](stage, key)
            except (RuntimeError, ArithmeticError) as error:
                raise UsageError(f"{key}.model cannot be built as it is configured: {error}") from error


def _trains(stage: Stage, key: str) -> None:
    config = Train.model_validate(stage.parameters["config"])
    with _named(key), torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = build(config.model, classes=CLASSES)
        if not config.objective.roles():
            build_objective(config.objective, model=model, teachers={}, counts=(1,) * CLASSES)


def _converts(stage: Stage, key: str, *, root: Path) -> None:
    config = stage.parameters["config"]
    file = brought(config["weights"], None if stage.file is None else root / stage.file, key=f"{key}.weights")
    with _named(key):
        check_fit(section(config, file), file)


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from error
