"""What only torch and timm can say about a configuration, asked before the first stage of a run is executed."""

from collections.abc import Iterable

import torch

from vitops.config.training import Train
from vitops.errors import UsageError
from vitops.losses.registry import build as build_objective
from vitops.models.registry import build
from vitops.plan.stages import Stage

CLASSES = 3
"""The fewest that every objective takes."""


def check_models(pipeline: str, stages: Iterable[Stage]) -> None:
    """Build the architecture of every training stage without memory for its weights, and its objective on it.

    An objective with teachers waits for them. Raises UsageError that names the key of an architecture that does not
    exist or refuses its arguments, or of an objective that the model does not suit.
    """
    for stage in stages:
        if stage.kind == "train":
            config, key = Train.model_validate(stage.parameters["config"]), f"pipelines.{pipeline}.{stage.name}"
            try:
                with torch.random.fork_rng(devices=[]), torch.device("meta"):
                    model = build(config.model, classes=CLASSES)
                    if not config.objective.roles():
                        build_objective(config.objective, model=model, teachers={}, counts=(1,) * CLASSES)
            except UsageError as error:
                raise UsageError(f"{key}: {error}") from error
            except (RuntimeError, ArithmeticError) as error:
                raise UsageError(f"{key}.model cannot be built as it is configured: {error}") from error
