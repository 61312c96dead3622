"""Self-attention in the form that ONNX Runtime executes with the fewest operators.

One product makes q, k and v of a pruned block, and the attention products are written out: the exporter's translation
of ``scaled_dot_product_attention`` computes shapes at run time to transpose k, which costs a tiny model more than
its arithmetic. The values are those of the split form up to rounding; the parity gate compares with the original.
"""

import copy

import torch
from torch import Tensor, nn

from vitops.models.pruned_vit import Attention


class FusedAttention(nn.Module):
    """``attention`` with one projection for q, k and v."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        parts = (attention.q, attention.k, attention.v)
        self.heads = attention.heads
        self.scale = attention.scale
        self.widths = [part.out_features for part in parts]
        self.qkv = nn.Linear(attention.q.in_features, sum(self.widths))
        self.qkv.weight = nn.Parameter(torch.cat([part.weight.detach() for part in parts]))
        self.qkv.bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]))
        self.proj = attention.proj

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E)."""
        tokens = x.shape[1]
        q, k, v = (
            part.view(-1, tokens, self.heads, part.shape[-1] // self.heads)  # (B, N, H, K or V)
            for part in self.qkv(x).split(self.widths, dim=-1)
        )
        scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) * self.scale  # (B, H, N, N)
        mixed = scores.softmax(dim=-1) @ v.transpose(1, 2)  # (B, H, N, V)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))  # (B, N, H * V) -> (B, N, E)
        return out


def fused(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in which every attention of a pruned block is fused; other modules stay as they are."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Attention):
                setattr(module, name, FusedAttention(child))
    return model
