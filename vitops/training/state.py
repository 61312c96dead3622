"""What a checkpoint holds of a running training: every tensor that influences its future, by name.

Everything else is a pure function of (configuration, seed, position): learning rate, sample order, all random draws.
The objective gets its tensors back in the order in which it gave them, for files know none and sums may follow it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from vitops.errors import VerificationError
from vitops.losses.objective import Objective

_SCALARS, _OBJECTIVE = "scalars", "objective"


def capture(
    model: nn.Module, optimizer: torch.optim.Optimizer, objective: Objective, average: ModelEmaV3 | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copies of all state tensors by prefixed name, and the optimizer's numbers that are not tensors."""
    tensors = {f"model/{name}": value for name, value in _weights(model).items()}
    tensors |= {f"auxiliary/{name}": value for name, value in _weights(objective.auxiliary).items()}
    scalars: dict[str, Any] = {}
    for index, entry in optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            (tensors if isinstance(value, Tensor) else scalars)[f"optimizer/{index}/{name}"] = value
    if average is not None:
        tensors |= {f"average/{name}": value for name, value in average.module.state_dict().items()}
    own = objective.state_dict()
    tensors |= {f"objective/{name}": value for name, value in own.items()}
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    return copies, {_SCALARS: scalars, _OBJECTIVE: list(own), "done": objective.done}


def restore(
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    average: ModelEmaV3 | None,
) -> None:
    """Put back what ``capture`` gave. Raises VerificationError when it belongs to another model."""
    _fill(_weights(model), _part(tensors, "model/"))
    _fill(_weights(objective.auxiliary), _part(tensors, "auxiliary/"))
    if average is not None:
        _fill(average.module.state_dict(), _part(tensors, "average/"))
    entries: dict[int, dict[str, Any]] = {}
    for name, value in {**_part(tensors, "optimizer/"), **_part(record[_SCALARS], "optimizer/")}.items():
        index, _, field = name.partition("/")
        entries.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    objective.load_state_dict({name: tensors[f"objective/{name}"] for name in record[_OBJECTIVE]})
    objective.done = record["done"]


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, also those that a state dict leaves out."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _part(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


@torch.no_grad()
def _fill(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    expected = {name: (tuple(value.shape), value.dtype) for name, value in targets.items()}
    found = {name: (tuple(value.shape), value.dtype) for name, value in values.items()}
    if expected != found:
        names = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        raise VerificationError(
            f"the checkpoint belongs to another model: {len(names)} tensors differ, first {names[:3]}"
        )
    for name, target in targets.items():
        target.copy_(values[name])
