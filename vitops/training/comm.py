"""What the ranks of one training say to each other. With one rank every call is free of communication."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Comm:
    """One rank's place among ``world`` equal processes (a power of two)."""

    rank: int = 0
    world: int = 1
    _pairs: Sequence[Any] = field(default=(), repr=False)

    @staticmethod
    def single() -> "Comm":
        """One process alone."""
        return Comm()

    @staticmethod
    def distributed() -> "Comm":
        """This process in torch.distributed's default group; every rank must call it."""
        rank, world = dist.get_rank(), dist.get_world_size()
        return Comm(rank, world, _butterfly(rank, world))

    def sums(self, *, exact: bool) -> "Sums":
        """Sums over the ranks: in the one order that finishes ``tree.TreeSum``, or in whatever the backend likes."""
        if exact or self.world == 1:
            return Sums(self._pairs)
        return Sums([dist.group.WORLD])

    def agree(self, number: int) -> int:
        """Rank 0's number, on every rank."""
        if self.world == 1:
            return number
        box = torch.tensor([number])
        dist.broadcast(box, 0)
        return int(box)

    def spread(self, data: bytes) -> bytes:
        """Rank 0's bytes, on every rank."""
        size = self.agree(len(data))
        if self.world == 1 or not size:
            return data if self.world == 1 else b""
        box = _tensor(data) if self.rank == 0 else torch.empty(size, dtype=torch.uint8)
        dist.broadcast(box, 0)
        return box.numpy().tobytes()

    def collect(self, data: bytes) -> list[bytes]:
        """Every rank's bytes, in rank order, on every rank."""
        if self.world == 1:
            return [data]
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(data)]))
        longest = max(int(size) for size in sizes)
        boxes = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.world)]
        dist.all_gather(boxes, _tensor(data + bytes(longest - len(data))))
        return [box[: int(size)].numpy().tobytes() for box, size in zip(boxes, sizes, strict=True)]


class Sums:
    """Sums over the ranks, in place, that go on while there is more to compute. All ranks begin them in one order."""

    def __init__(self, groups: Sequence[Any]) -> None:
        """``groups``: over which to sum, one after the other."""
        self._groups = groups
        self._under_way: list[tuple[Tensor, Any]] = []

    def begin(self, flat: Tensor) -> None:
        """Begin to sum a vector, which nobody may touch before ``finish``."""
        if self._groups:
            self._under_way.append((flat, dist.all_reduce(flat, group=self._groups[0], async_op=True)))

    def finish(self) -> None:
        """Wait until every vector holds its sum."""
        for group in self._groups[1:]:
            self._under_way = [(flat, _next(work, flat, group)) for flat, work in self._under_way]
        for _, work in self._under_way:
            work.wait()
        self._under_way = []


def _next(work: Any, flat: Tensor, group: Any) -> Any:
    work.wait()
    return dist.all_reduce(flat, group=group, async_op=True)


def _butterfly(rank: int, world: int) -> list[Any]:
    """This rank's pair of each round; all ranks create all groups in the same order, as torch demands."""
    mine, stride = [], 1
    while stride < world:
        for low in (rank_ for rank_ in range(world) if not rank_ & stride):
            group = dist.new_group([low, low | stride])
            if rank in (low, low | stride):
                mine.append(group)
        stride *= 2
    return mine


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
