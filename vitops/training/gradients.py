"""One pass over a step: every micro-batch forward and backward, summed in the fixed tree.

Laws: what leaves here (mean gradients, merged buffers, mean loss, contributions in micro-batch order) has the same bits
for every number of workers. Each micro-batch starts from the buffers of the step's beginning; the changes of its float
buffers (BatchNorm's running statistics) are averaged through the same tree as the gradients; every other buffer takes
the value that the step's last micro-batch leaves, whoever computes that (a counter of batches counts one step). The
random key of a micro-batch is the same in every pass of a step, so SAM's two passes drop the same units.
A parameter that a micro-batch does not use has a gradient of zeros there, never None; frozen parameters have none.
No parameter, trained or frozen, may change within a micro-batch: what one micro-batch writes, only those after it on
the same rank would see. What loss() keeps in Python attributes cannot be seen from here, and must not be.

A gradient goes into the tree as soon as backward has it, and while the rank's last backward goes on, what is complete
is already summed over the ranks: the order of each element's sum is the tree's all the same. So a parameter gets its
gradient once in a micro-batch, and what an error leaves behind is half a sum: it is not gone on with.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from vitops.data.keyed import seeded
from vitops.errors import VitopsError
from vitops.losses.objective import Contributions, Objective
from vitops.training.buckets import Buckets
from vitops.training.comm import Comm
from vitops.training.tree import TreeSum, share

SampleOf = Callable[[int], dict[str, Tensor]]
Key = tuple[int | str, ...]
BUCKET = 1 << 20
"""Elements of a bucket: few enough to begin early, many enough that a message's fixed cost does not count."""
_REST = 0
"""The piece of a step's vector that holds buffer changes and loss. It stands first: it is the last to be known."""


class StepGradient:
    """Sums one vector in pieces: buffer changes and loss, then the gradient of each parameter.

    The objective's loss() and the model's forward must keep no state but in buffers and what ``state_dict`` gives.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, *, comm: Comm, micro_batches: int, exact: bool = True
    ) -> None:
        """``exact=False`` sums over the ranks in the backend's own order, as DistributedDataParallel does."""
        self._objective, self._comm, self._micro_batches = objective, comm, micro_batches
        self._own = share(micro_batches, rank=comm.rank, world=comm.world)
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._names, self._parameters = list(trained), list(trained.values())
        self._every = dict(model.named_parameters())
        self._buffers = list(model.buffers())
        self._floats = [buffer for buffer in self._buffers if buffer.is_floating_point()]
        self._others = [buffer for buffer in self._buffers if not buffer.is_floating_point()]
        rest = sum(buffer.numel() for buffer in self._floats) + 1
        sizes = [rest, *(parameter.numel() for parameter in self._parameters)]
        self._sum = TreeSum(sizes, leaves=len(self._own), device=self._parameters[0].device)
        self._buckets, self._over_ranks = Buckets(sizes, full=BUCKET), comm.sums(exact=exact)
        self._leaf, self._missing = 0, set[int]()
        self._unfinished = False

    def run(self, sample_of: SampleOf, key: Key) -> tuple[float, list[Contributions]]:
        """Leave the mean gradients in ``.grad`` and the merged buffers in the model.

        The next run overwrites these gradients. Returns the mean loss and the contributions of all micro-batches, in
        order. Raises VitopsError when the objective gives a parameter two gradients in one micro-batch or changes one,
        and whenever a run before ended in an error.
        """
        self._begin()
        begin = [buffer.clone() for buffer in self._buffers]
        own: list[Contributions] = []
        with self._watched():
            for leaf, m in enumerate(self._own):
                self._leaf = leaf
                _copy(self._buffers, begin)
                own.append(self._micro_batch(sample_of(m), (*key, m), begin))
        self._over_ranks.finish()
        found = self._spread(begin), self._exchange(own)
        self._unfinished = False
        return found

    def _begin(self) -> None:
        if self._unfinished:
            raise VitopsError(
                "an earlier step of this training ended in an error and left half of its sums behind: start the "
                "training anew, it goes on from its last checkpoint"
            )
        self._unfinished = True

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Within the block every gradient is taken over as soon as it is there."""
        watching = [
            parameter.register_post_accumulate_grad_hook(partial(self._take, piece))
            for piece, parameter in enumerate(self._parameters, start=1)
        ]
        try:
            yield
        finally:
            for handle in watching:
                handle.remove()

    def _micro_batch(self, sample: dict[str, Tensor], key: Key, begin: list[Tensor]) -> Contributions:
        for parameter in self._parameters:
            parameter.grad = None
        self._missing = set(range(1, len(self._parameters) + 1))
        with seeded(*key) as rng:
            with self._constant():
                loss, contributions = self._objective.loss(sample, rng)
            torch.autograd.backward(loss)
        for piece in sorted(self._missing, reverse=True):
            self._put(piece, torch.zeros_like(self._parameters[piece - 1]))
        floats = [start for start in begin if start.is_floating_point()]
        changes = [_change(buffer, start).reshape(-1) for buffer, start in zip(self._floats, floats, strict=True)]
        self._put(_REST, torch.cat([part.float() for part in (*changes, loss.detach().reshape(1))]))
        return {name: value.detach() for name, value in contributions.items()}

    @contextmanager
    def _constant(self) -> Iterator[None]:
        """Refuse a block that writes to a parameter. Through ``.data`` it goes unseen."""
        before = [parameter._version for parameter in self._every.values()]
        yield
        for (name, parameter), version in zip(self._every.items(), before, strict=True):
            if parameter._version != version:
                raise VitopsError(
                    f"the parameter {name} was changed in place while a loss was computed: each rank would train with "
                    "values of its own. Leave it as it is in forward() and in the objective's loss(), and keep what "
                    "changes there in a buffer (nn.Embedding(max_norm=...) does this: leave max_norm out)"
                )

    def _take(self, piece: int, parameter: Tensor) -> None:
        assert parameter.grad is not None
        if piece not in self._missing:
            raise VitopsError(
                f"the parameter {self._names[piece - 1]} got a second gradient in one micro-batch: the loss() of an "
                "objective returns one scalar, the sum of all its terms, and leaves backward() to the training "
                "(reentrant activation checkpointing runs one of its own: use_reentrant=False)"
            )
        gradient, parameter.grad = parameter.grad, None
        self._missing.remove(piece)
        self._put(piece, gradient)

    def _put(self, piece: int, value: Tensor) -> None:
        self._sum.put(self._leaf, piece, value.detach().reshape(-1).float())
        if self._leaf == len(self._own) - 1:
            for elements in self._buckets.arrive(piece):
                self._over_ranks.begin(self._sum.total[elements])

    def _spread(self, begin: list[Tensor]) -> float:
        self._sum.total.div_(self._micro_batches)
        rest, *gradients = self._sum.parts()
        for parameter, part in zip(self._parameters, gradients, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
        floats = [start for start in begin if start.is_floating_point()]
        changes = rest[:-1].split([start.numel() for start in floats])
        for buffer, start, part in zip(self._floats, floats, changes, strict=True):
            buffer.copy_(start + part.view_as(start).to(start.dtype))
        return float(rest[-1])

    def _exchange(self, own: list[Contributions]) -> list[Contributions]:
        """The contributions of all micro-batches; with each rank's come the buffers that are no floats."""
        left = {str(place): buffer for place, buffer in enumerate(self._others)}
        told = _from_all([*own, left], self._comm)
        _copy(self._others, list(told[-1].values()))
        return [entry for number, entry in enumerate(told, start=1) if number % (len(own) + 1)]


def _change(buffer: Tensor, start: Tensor) -> Tensor:
    """What was added to the buffer; none where it stayed as it was, which may be infinite."""
    return torch.where(buffer == start, 0, buffer - start)


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def _from_all(own: list[Contributions], comm: Comm) -> list[Contributions]:
    """The entries of all ranks, one rank's after the other's: ranks hold consecutive micro-batches."""
    if comm.world == 1:
        return own
    named = {
        f"{m}/{place:06d}/{name}": value.cpu().clone(memory_format=torch.contiguous_format)
        for m, entry in enumerate(own)
        for place, (name, value) in enumerate(entry.items())
    }
    everything: list[Contributions] = []
    for data in comm.collect(save(named)):
        entries: list[Contributions] = [{} for _ in own]
        for full, value in sorted(load(data).items()):  # in the order in which the objective gave them
            m, _, name = full.split("/", 2)
            entries[int(m)][name] = value
        everything.extend(entries)
    return everything
