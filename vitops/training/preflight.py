"""What only torch and timm can say about a configuration, asked before the first stage of a run is executed."""

from collections.abc import Iterable

import torch

from vitops.config.training import Train
from vitops.errors import UsageError
from vitops.models.registry import build
from vitops.plan.stages import Stage


def check_models(pipeline: str, stages: Iterable[Stage]) -> None:
    """Build the architecture of every training stage without memory for its weights.

    Raises UsageError that names the key of an architecture that does not exist or refuses its arguments.
    """
    for stage in stages:
        if stage.kind == "train":
            config, key = Train.model_validate(stage.parameters["config"]), f"pipelines.{pipeline}.{stage.name}"
            try:
                with torch.random.fork_rng(devices=[]), torch.device("meta"):
                    build(config.model, classes=2)
            except UsageError as error:
                raise UsageError(f"{key}: {error}") from error
            except (RuntimeError, ArithmeticError) as error:
                raise UsageError(f"{key}.model cannot be built as it is configured: {error}") from error
