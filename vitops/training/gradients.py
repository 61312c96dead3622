"""One pass over a step: every micro-batch forward and backward, summed in the fixed tree.

Laws: what leaves here (mean gradients, merged buffers, mean loss, contributions in micro-batch order) has the same bits
for every number of workers. Each micro-batch starts from the buffers of the step's beginning; the changes of its float
buffers (BatchNorm's running statistics) are averaged through the same tree as the gradients, integer buffers count one
step. The random key of a micro-batch is the same in every pass of a step, so SAM's two passes drop the same units.
"""

from collections.abc import Callable

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from vitops.data.keyed import seeded
from vitops.losses.objective import Contributions, Objective
from vitops.training.comm import Comm
from vitops.training.tree import share, tree_sum

SampleOf = Callable[[int], dict[str, Tensor]]
Key = tuple[int | str, ...]


class StepGradient:
    """Accumulates one flat float32 vector: gradients, buffer changes, loss."""

    def __init__(
        self, model: nn.Module, objective: Objective, *, comm: Comm, micro_batches: int, exact: bool = True
    ) -> None:
        """``exact=False`` sums over the ranks in the backend's own order."""
        self._objective, self._comm, self._micro_batches = objective, comm, micro_batches
        self._reduce = comm.tree_sum if exact else comm.plain_sum
        self._own = share(micro_batches, rank=comm.rank, world=comm.world)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._buffers = list(model.buffers())
        self._floats = [buffer for buffer in self._buffers if buffer.is_floating_point()]
        self._sizes = [tensor.numel() for tensor in (*self._parameters, *self._floats)] + [1]

    def run(self, sample_of: SampleOf, key: Key) -> tuple[float, list[Contributions]]:
        """Leave the mean gradients in ``.grad`` and the merged buffers in the model.

        Returns the mean loss and the contributions of all micro-batches, in order.
        """
        begin = [buffer.clone() for buffer in self._buffers]
        own: list[Contributions] = []

        def leaf(m: int) -> Tensor:
            _copy(self._buffers, begin)
            flat, contributions = self._micro_batch(sample_of(m), (*key, m), begin)
            own.append(contributions)
            return flat

        flat = tree_sum(leaf, self._own.start, self._own.stop)
        self._reduce(flat)
        loss = self._spread(flat.div_(self._micro_batches), begin)
        return loss, _exchange(own, self._comm)

    def _micro_batch(self, sample: dict[str, Tensor], key: Key, begin: list[Tensor]) -> tuple[Tensor, Contributions]:
        for parameter in self._parameters:
            parameter.grad = None
        with seeded(*key) as rng:
            loss, contributions = self._objective.loss(sample, rng)
            torch.autograd.backward(loss)
        grads = [_gradient(parameter).reshape(-1) for parameter in self._parameters]
        floats = [start for start in begin if start.is_floating_point()]
        changes = [(buffer - start).reshape(-1) for buffer, start in zip(self._floats, floats, strict=True)]
        parts = [part.float() for part in (*grads, *changes, loss.detach().reshape(1))]
        return torch.cat(parts), {name: value.detach() for name, value in contributions.items()}

    def _spread(self, flat: Tensor, begin: list[Tensor]) -> float:
        parts = flat.split(self._sizes)
        for parameter, part in zip(self._parameters, parts, strict=False):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
        floats = [start for start in begin if start.is_floating_point()]
        for buffer, start, part in zip(self._floats, floats, parts[len(self._parameters) :], strict=False):
            buffer.copy_(start + part.view_as(start).to(start.dtype))
        return float(parts[-1])


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def _exchange(own: list[Contributions], comm: Comm) -> list[Contributions]:
    """All micro-batches' contributions from each rank's own: ranks hold consecutive micro-batches."""
    if comm.world == 1:
        return own
    named = {f"{m}/{name}": value.cpu().clone() for m, entry in enumerate(own) for name, value in entry.items()}
    everything: list[Contributions] = []
    for data in comm.collect(save(named)):
        entries: list[Contributions] = [{} for _ in own]
        for full, value in load(data).items():
            m, _, name = full.partition("/")
            entries[int(m)][name] = value
        everything.extend(entries)
    return everything
