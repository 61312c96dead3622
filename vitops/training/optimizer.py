"""timm's optimizers with timm's weight-decay groups."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay  # type: ignore[attr-defined]
from torch import nn

from vitops.config.training import Optimizer


def build(section: Optimizer, model: nn.Module, auxiliary: nn.Module | None = None) -> torch.optim.Optimizer:
    """The optimizer of ``section`` over the model's trainable parameters, then those of ``auxiliary``.

    Weight decay skips 1-D parameters (unless ``decay_1d``) and what ``model.no_weight_decay()`` names. ``sgd`` is plain
    momentum unless ``nesterov``: timm's own ``sgd`` is Nesterov's. torch's fused kernels update element by element:
    same bits for every number of threads.
    """
    own: dict[str, Any] = {"momentum": section.momentum}
    name = "sgd" if section.nesterov else "momentum"
    if section.name == "adamw":
        name, own = "adamw", {"betas": section.betas, "eps": section.eps}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        name,
        lr=section.lr,
        weight_decay=section.weight_decay,
        filter_bias_and_bn=not section.decay_1d,
        fused=True,
        **own,
    )
    for group in _groups(section, auxiliary) if auxiliary is not None else []:
        optimizer.add_param_group(group)
    return optimizer


def _groups(section: Optimizer, module: nn.Module) -> list[dict[str, Any]]:
    skips = not section.decay_1d
    found: list[dict[str, Any]] = param_groups_weight_decay(module, section.weight_decay, weight_decay_exclude_1d=skips)
    return found
