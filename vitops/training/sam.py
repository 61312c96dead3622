"""Sharpness-aware minimisation (Foret et al. 2021; adaptive form: Kwon et al. 2021)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_EPSILON = 1e-12


@contextmanager
def perturbed(parameters: Sequence[nn.Parameter], *, rho: float, adaptive: bool) -> Iterator[Tensor]:
    """Within the block the parameters stand at theta + e; after it they have their old bits back.

    e = rho * g / ||g|| with the joint L2 norm over all parameters and the gradients found in ``.grad``; adaptive:
    e = rho * theta^2 * g / || |theta| * g ||. Yields that norm. Parameters without a gradient stay.
    """
    moved = [parameter for parameter in parameters if parameter.grad is not None]
    saved = [parameter.detach().clone() for parameter in moved]
    norm = _joint_norm(moved, adaptive=adaptive)
    with torch.no_grad():
        for parameter in moved:
            direction = _gradient(parameter) * parameter.square() if adaptive else _gradient(parameter)
            parameter.add_(direction * (rho / (norm + _EPSILON)))
    try:
        yield norm
    finally:
        with torch.no_grad():
            for parameter, old in zip(moved, saved, strict=True):
                parameter.copy_(old)


@torch.no_grad()
def _joint_norm(parameters: Sequence[nn.Parameter], *, adaptive: bool) -> Tensor:
    scaled = [_gradient(p) * p.abs() if adaptive else _gradient(p) for p in parameters]
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in scaled]))
    return norm


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
