"""A vision transformer whose blocks have their own numbers of heads, query/key, value and hidden widths.

What structural pruning leaves behind: dense, really smaller, and rebuilt from its widths alone. State-dict names are
timm's, except that ``attn.qkv`` is split into ``attn.q``, ``attn.k`` and ``attn.v``. The attention scale is stored:
it stays head_dim^-0.5 of the unpruned model, whatever the pruned query/key width is.
Source: NViT (CVPR 2023, arXiv 2110.04869), prunable structures with aligned heads.

Shapes: B images, N tokens, E residual width, H heads, K query/key width and V value width of a head.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from timm.layers.drop import DropPath
from torch import Tensor, nn

from vitops.errors import VerificationError

EPS = 1e-6
Widths = tuple[int, ...]


class LayerNormDims(BaseModel):
    """How a norm treats a residual stream that lost channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["plain", "gain", "exact"] = "plain"
    """``plain`` and ``gain`` (its factor lies in the weights) norm over what is left; ``exact`` over the old width."""
    dense_emb: int = Field(ge=1)
    """Residual width before pruning."""


class Dims(BaseModel):
    """Everything that fixes the shape of a pruned ViT, and what it drops in training; per-block widths in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    img_size: int = Field(ge=1)
    patch_size: int = Field(ge=1)
    classes: int = Field(ge=1)
    distilled: bool
    emb: int = Field(ge=1)
    h: Widths
    qk: Widths
    v: Widths
    mlp: Widths
    scale: float = Field(gt=0)
    ln: LayerNormDims
    reg_tokens: int = Field(0, ge=0)
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth of the last block, rising linearly from 0 at the first."""
    attn_drop: float = Field(0.0, ge=0, lt=1)
    """Dropout of attention weights; the others below as well: all where timm has them, in training only."""
    proj_drop: float = Field(0.0, ge=0, lt=1)
    """Of the MLP's activations, and of what each branch of a block gives."""
    pos_drop: float = Field(0.0, ge=0, lt=1)
    """Of tokens with their positions."""
    head_drop: float = Field(0.0, ge=0, lt=1)
    """Of what a head reads."""

    @model_validator(mode="after")
    def _consistent(self) -> "Dims":
        if not self.h or len({len(self.h), len(self.qk), len(self.v), len(self.mlp)}) != 1:
            raise ValueError("h, qk, v and mlp must have one entry per block, and there must be a block")
        if min(*self.h, *self.qk, *self.v, *self.mlp) < 1:
            raise ValueError("every structure keeps at least one unit")
        if self.img_size % self.patch_size:
            raise ValueError(f"img_size {self.img_size} is no multiple of patch_size {self.patch_size}")
        if self.emb > self.ln.dense_emb:
            raise ValueError(f"emb {self.emb} exceeds the dense width {self.ln.dense_emb}")
        return self


class ExactLayerNorm(nn.LayerNorm):
    """LayerNorm over ``dense`` channels of which only the kept ones are stored; the others are zeros.

    The statistics are those of the masked dense norm: mean = sum(x) / dense, variance = sum(x^2) / dense - mean^2.
    """

    def __init__(self, kept: int, *, dense: int) -> None:
        super().__init__(kept, eps=EPS)
        self.dense = dense

    def forward(self, x: Tensor) -> Tensor:
        """(..., kept) -> (..., kept)."""
        mean = x.sum(dim=-1, keepdim=True) / self.dense
        variance = x.square().sum(dim=-1, keepdim=True) / self.dense - mean.square()
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class Attention(nn.Module):
    """Self-attention with separate query, key and value projections and a stored scale."""

    def __init__(self, dims: Dims, index: int) -> None:
        super().__init__()
        self.heads, self.scale, self.attn_drop = dims.h[index], dims.scale, dims.attn_drop
        self.q = nn.Linear(dims.emb, self.heads * dims.qk[index])
        self.k = nn.Linear(dims.emb, self.heads * dims.qk[index])
        self.v = nn.Linear(dims.emb, self.heads * dims.v[index])
        self.proj = nn.Linear(self.heads * dims.v[index], dims.emb)
        self.proj_drop = nn.Dropout(dims.proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E)."""
        q, k, v = (self._split(part(x)) for part in (self.q, self.k, self.v))
        dropped = self.attn_drop if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale, dropout_p=dropped)  # (B, H, N, V)
        out: Tensor = self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))  # (B, N, H * V) -> (B, N, E)
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, N, K or V)


class Mlp(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, dims: Dims, index: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims.emb, dims.mlp[index])
        self.fc2 = nn.Linear(dims.mlp[index], dims.emb)
        self.drop = nn.Dropout(dims.proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E)."""
        out: Tensor = self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))
        return out


class Block(nn.Module):
    """Pre-norm transformer block with the widths of entry ``index``."""

    def __init__(self, dims: Dims, index: int) -> None:
        super().__init__()
        rate = dims.drop_path * index / max(1, len(dims.h) - 1)
        self.norm1 = _norm(dims)
        self.attn = Attention(dims, index)
        self.norm2 = _norm(dims)
        self.mlp = Mlp(dims, index)
        self.drop_path = DropPath(rate) if rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class PatchEmbed(nn.Module):
    """Non-overlapping patches, row by row."""

    def __init__(self, patch_size: int, emb: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, emb, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, patches, E)."""
        patches: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return patches


class PrunedViT(nn.Module):
    """Tokens: CLS, then DIST where distilled, then registers, then patches; position embedding over all of them."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.dims = dims
        self.num_classes = dims.classes
        self.num_prefix_tokens = 1 + int(dims.distilled) + dims.reg_tokens
        self.patch_embed = PatchEmbed(dims.patch_size, dims.emb)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims.emb))
        if dims.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, dims.emb))
        if dims.reg_tokens:
            self.reg_token = nn.Parameter(torch.zeros(1, dims.reg_tokens, dims.emb))
        patches = (dims.img_size // dims.patch_size) ** 2
        self.pos_embed = nn.Parameter(torch.zeros(1, self.num_prefix_tokens + patches, dims.emb))
        self.pos_drop = nn.Dropout(dims.pos_drop)
        self.blocks = nn.Sequential(*(Block(dims, index) for index in range(len(dims.h))))
        self.norm = _norm(dims)
        self.head_drop = nn.Dropout(dims.head_drop)
        self.head = nn.Linear(dims.emb, dims.classes)
        if dims.distilled:
            self.head_dist = nn.Linear(dims.emb, dims.classes)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=1e-6 if name == "cls_token" else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay skips, by timm's convention."""
        return {"pos_embed", "cls_token", "dist_token", "reg_token"}

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> normed tokens (B, N, E)."""
        patches = self.patch_embed(x)
        prefix = [token.expand(x.shape[0], -1, -1) for token in self._prefix()]
        placed = self.pos_drop(torch.cat([*prefix, patches], dim=1) + self.pos_embed)
        tokens: Tensor = self.norm(self.blocks(placed))
        return tokens

    def _prefix(self) -> list[Tensor]:
        names = ("cls_token", "dist_token", "reg_token")
        return [getattr(self, name) for name in names if hasattr(self, name)]

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, C): the mean of both heads where there are two, in every mode."""
        features = self.forward_features(x)
        logits: Tensor = self.head(self.head_drop(features[:, 0]))
        return (logits + self.head_dist(self.head_drop(features[:, 1]))) / 2 if self.dims.distilled else logits


def _norm(dims: Dims) -> nn.LayerNorm:
    if dims.ln.mode == "exact":
        return ExactLayerNorm(dims.emb, dense=dims.ln.dense_emb)
    return nn.LayerNorm(dims.emb, eps=EPS)


def build(dims: Mapping[str, Any]) -> PrunedViT:
    """The model of ``dims`` (see Dims), freshly initialised. Raises VerificationError when they make no model."""
    try:
        return PrunedViT(Dims.model_validate(dims))
    except ValidationError as error:
        raise VerificationError(f"the pruned widths (dims) make no model: {error}") from error
