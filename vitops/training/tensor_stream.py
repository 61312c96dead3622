"""Tensors in safetensors form, piece by piece: no second copy of them in memory.

Law: the pieces joined are the bytes that ``safetensors.torch.save`` gives.
"""

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

_PIECE = 1 << 24
_SMALL = 1 << 20
_ALIGNMENT = 8
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")
"""Widest first, so that every tensor is aligned: the order in which safetensors lays out the types."""


def stream(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file's bytes, mostly as views of the (contiguous CPU) tensors, which must not change meanwhile.

    What is small is joined: a small state is one piece. Raises KeyError for a type that training does not use.
    """
    small: list[bytes | memoryview] = []
    for piece in _pieces(tensors):
        if len(piece) < _SMALL:
            small.append(piece)
        if small and (len(piece) >= _SMALL or sum(map(len, small)) >= _SMALL):
            yield b"".join(small)
            small.clear()
        if len(piece) >= _SMALL:
            yield piece
    if small:
        yield b"".join(small)


def _pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    laid_out = sorted(tensors.items(), key=lambda item: (_ORDER.index(_NAMES[item[1].dtype]), item[0]))
    yield _header(laid_out)
    for _, tensor in laid_out:
        data = tensor.detach().reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(data), _PIECE):
            yield data[start : start + _PIECE]


def _header(laid_out: list[tuple[str, Tensor]]) -> bytes:
    entries, end = {}, 0
    for name, tensor in laid_out:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
