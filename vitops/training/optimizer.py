"""timm's optimizers with timm's weight-decay groups."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn

from vitops.config.training import Optimizer


def build(section: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of ``section`` over the model's trainable parameters.

    Weight decay skips 1-D parameters (unless ``decay_1d``) and what ``model.no_weight_decay()`` names. ``sgd`` is plain
    momentum: timm's own ``sgd`` would be Nesterov's. torch's fused kernels update element by element: same bits for
    every number of threads.
    """
    own: dict[str, Any] = {"momentum": section.momentum}
    if section.name == "adamw":
        own = {"betas": section.betas, "eps": section.eps}
    return create_optimizer_v2(
        model,
        "momentum" if section.name == "sgd" else section.name,
        lr=section.lr,
        weight_decay=section.weight_decay,
        filter_bias_and_bn=not section.decay_1d,
        fused=True,
        **own,
    )
