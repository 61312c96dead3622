"""A dense vision transformer of timm as a PrunedViT of full widths, the one form that pruning works on.

Laws: the converted model gives the same logits; whatever of the source has no place in a PrunedViT (layer scale,
q/k norms, gated MLPs, average pooling, ...) is refused by the path of its module before anything is trained.
"""

from typing import Any, cast

import torch
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vitops.config.compression import Dropout
from vitops.errors import UsageError
from vitops.models.heads import heads, is_distilled
from vitops.models.pruned_vit import EPS, PrunedViT, build

_TOLERANCE = 1e-4
_NONE = Dropout()


def as_pruned_vit(model: nn.Module, dropout: Dropout = _NONE) -> PrunedViT:
    """``model`` with q, k and v split, in evaluation mode; a PrunedViT is copied. It drops what ``dropout`` says.

    Raises UsageError naming the module that structural pruning does not support.
    """
    dims = model.dims.model_dump(mode="json") if isinstance(model, PrunedViT) else _dims(model)
    state = model.state_dict() if isinstance(model, PrunedViT) else _split_state(model)
    with torch.random.fork_rng(devices=[]):
        dense = build(dims | dropout.parameters())
    _load(dense, state)
    dense.eval()
    _check_same(model, dense)
    return dense


def _refuse(path: str, why: str) -> UsageError:
    return UsageError(f"structural pruning does not support {path}: {why}; use a plain or distilled ViT of timm")


def _dims(model: nn.Module) -> dict[str, Any]:
    if not isinstance(model, VisionTransformer):
        raise _refuse(type(model).__name__, "it has no transformer blocks that pruning knows")
    _check_frame(model)
    for index, block in enumerate(model.blocks):
        _check_block(block, path=f"blocks.{index}")
    blocks = [cast(Any, block) for block in model.blocks]
    return {
        "img_size": model.patch_embed.img_size[0],
        "patch_size": model.patch_embed.patch_size[0],
        "classes": model.num_classes,
        "distilled": is_distilled(model),
        "emb": model.embed_dim,
        "h": [block.attn.num_heads for block in blocks],
        "qk": [block.attn.head_dim for block in blocks],
        "v": [block.attn.head_dim for block in blocks],
        "mlp": [block.mlp.fc1.out_features for block in blocks],
        "scale": float(blocks[0].attn.scale),
        "ln": {"mode": "plain", "dense_emb": model.embed_dim},
        "reg_tokens": model.num_reg_tokens,
    }


def _check_frame(model: VisionTransformer) -> None:
    """The parts around the blocks."""
    embed = model.patch_embed
    if model.global_pool != "token":
        raise _refuse("global_pool", f"it is {model.global_pool!r}, not the class token")
    if embed.proj.in_channels != 3 or embed.img_size[0] != embed.img_size[1]:
        raise _refuse("patch_embed", "it needs square images of 3 channels")
    if model.pos_embed is None or model.pos_embed.shape[1] != embed.num_patches + model.num_prefix_tokens:
        raise _refuse("pos_embed", "it must hold one learned position per token")
    if not model.blocks:
        raise _refuse("blocks", "there is none")
    if not isinstance(model.patch_drop, nn.Identity):
        raise _refuse("patch_drop", "it drops patches in training, which no rate of prune.dropout stands for")
    _check_norm(model.norm, path="norm")


def _check_block(block: nn.Module, *, path: str) -> None:
    if type(block) is not Block:
        raise _refuse(path, f"it is a {type(block).__name__}")
    if type(block.attn) is not Attention:
        raise _refuse(f"{path}.attn", f"it is a {type(block.attn).__name__}")
    if type(block.mlp) is not Mlp or not isinstance(block.mlp.act, nn.GELU):
        raise _refuse(f"{path}.mlp", "it is no pair of linear layers around a GELU")
    _check_norm(block.norm1, path=f"{path}.norm1")
    _check_norm(block.norm2, path=f"{path}.norm2")


def _check_norm(norm: nn.Module, *, path: str) -> None:
    if not isinstance(norm, nn.LayerNorm) or norm.eps != EPS:
        raise _refuse(path, f"it is no LayerNorm with eps {EPS:g}")


def _split_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with ``attn.qkv`` cut into its thirds."""
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if ".attn.qkv." in name:
            if len(tensor) % 3:
                raise _refuse(name, f"{len(tensor)} rows are no three equal parts")
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace(".attn.qkv.", f".attn.{part}.")] = rows
        else:
            state[name] = tensor
    return state


def _load(dense: PrunedViT, state: dict[str, Tensor]) -> None:
    wanted = dense.state_dict()
    for name in sorted(state.keys() ^ wanted.keys()):
        why = "it has no place in the pruned model" if name in state else "it is missing"
        raise _refuse(name.rpartition(".")[0] or name, f"{name}: {why}")
    dense.load_state_dict(state)


def _check_same(model: nn.Module, dense: PrunedViT) -> None:
    """A last line of defence against a variant of the architecture that no check above names."""
    side = dense.dims.img_size
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    mode = model.training
    with torch.no_grad():
        expected, found = heads(model.eval(), images)["mean"], heads(dense, images)["mean"]
    model.train(mode)
    if float((expected - found).abs().max()) > _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise _refuse(type(model).__name__, "its blocks compute something else than a plain ViT's")
