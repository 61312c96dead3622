"""Exponential moving average of the weights."""

import torch
from torch import Tensor, nn


class WeightAverage:
    """``average <- decay * average + (1 - decay) * value`` after each step; integer buffers are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._rest = 1 - decay
        self.state: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's present weights and buffers."""
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, self._rest)
            else:
                self.state[name].copy_(value)
