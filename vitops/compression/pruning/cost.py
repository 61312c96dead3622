"""What a pruned vision transformer costs: multiply-accumulates of one image, from its widths alone.

Attention products are counted; biases, norms and softmax are not. N tokens, P patches of p * p * 3 values, C classes:
P*3*p*p*E + sum over blocks of N*(2*E*H*Q + 2*E*H*V + 2*E*M) + N*N*H*(Q + V), plus E*C for each head.
"""

from collections.abc import Callable

from vitops.compression.pruning.groups import EMB, Dims, kind, widths

_CHANNELS = 3

Cost = Callable[[Dims], float]


def macs(dims: Dims) -> int:
    """Multiply-accumulates of one image."""
    emb, heads = dims["emb"], 2 if dims["distilled"] else 1
    patches = (dims["img_size"] // dims["patch_size"]) ** 2
    embedding = patches * _CHANNELS * dims["patch_size"] ** 2 * emb
    blocks = zip(dims["h"], dims["qk"], dims["v"], dims["mlp"], strict=True)
    tokens = patches + heads + dims.get("reg_tokens", 0)
    inside = sum(_block(tokens, emb, h=h, qk=qk, v=v, mlp=mlp) for h, qk, v, mlp in blocks)
    return int(embedding + inside + heads * emb * dims["classes"])


def _block(tokens: int, emb: int, *, h: int, qk: int, v: int, mlp: int) -> int:
    return tokens * 2 * emb * (h * (qk + v) + mlp) + tokens * tokens * h * (qk + v)


def with_fewer(dims: Dims, *, structure: str, units: int) -> Dims:
    """``dims`` after ``units`` of ``structure`` are gone."""
    if structure == EMB:
        return dims | {"emb": dims["emb"] - units}
    index, name = int(structure.partition(".")[0][1:]), kind(structure)
    column = list(dims[name])
    column[index] -= units
    return dims | {name: column}


def savings(cost: Cost, dims: Dims) -> dict[str, float]:
    """Structure -> what one unit less saves at ``dims``; never negative, 0 where a single unit is left."""
    now = cost(dims)
    return {
        structure: max(0.0, now - cost(with_fewer(dims, structure=structure, units=1))) if width > 1 else 0.0
        for structure, width in widths(dims).items()
    }
