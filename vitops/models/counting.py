"""Parameters and multiply-accumulates of one image, attention products included.

Counted by running the model on the meta device under torch's own counter, which sees what
``scaled_dot_product_attention`` multiplies (fvcore does not: it reports 16.95 G for DeiT-B instead of 17.66 G).
"""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(model: nn.Module) -> int:
    """Number of parameters; buffers do not count, a shared parameter counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, input_size: int | tuple[int, int]) -> int:
    """Multiply-accumulates of one image of ``input_size`` pixels (side, or height and width).

    Matrix products, convolutions and attention products count; norms, activations, softmax and biases do not.
    The model is untouched: a copy without data runs in evaluation mode.
    """
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    shape = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shape(torch.empty(1, 3, height, width, device="meta"))
    flops: int = counter.get_total_flops()
    return flops // 2
