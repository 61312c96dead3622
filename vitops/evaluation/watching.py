"""What the blocks of a vision transformer do, seen from outside while the model runs its own forward pass.

Laws: the model is not edited and gives the bits it gives unwatched; the hooks are gone afterwards, also after an error.
Fused attention never makes its matrix. So each call is made a second time with the identity in place of the values:
what comes out is the attention itself, under the same mask and scale.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Seen:
    """One block's output tokens (B, N, E) and its attention: one (B, H, N, N) for each call."""

    tokens: Tensor
    attention: list[Tensor]


@contextmanager
def watched(blocks: Sequence[nn.Module]) -> Iterator[list[Seen]]:
    """Fill the list with what each of ``blocks`` does, in the order in which they run within the context."""
    found: list[Seen] = []
    calls = _FusedAttention()

    def after(block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(Seen(output, calls.taken()))

    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_hook(after).remove)
        with calls:
            yield found


class _FusedAttention(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._found: list[Tensor] = []

    def taken(self) -> list[Tensor]:
        """The attention of every call since the last question."""
        found, self._found = self._found, []
        return found

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            self._found.append(_attention(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _attention(query: Tensor, key: Tensor, value: Tensor, *others: Any, **settings: Any) -> Tensor:
    identity = torch.eye(key.shape[-2], dtype=value.dtype, device=value.device)
    return F.scaled_dot_product_attention(query, key, identity.expand(*key.shape[:-2], -1, -1), *others, **settings)
