"""A model as files: ``weights.safetensors`` and ``model.json``, enough to rebuild it with no code from the artifact.

Laws: nothing is unpickled; saving the same module twice gives the same bytes, and loading gives the same bits back;
the caller's random state is left alone by ``load``.
"""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitops.config.models import Model
from vitops.errors import UsageError, VerificationError
from vitops.models.registry import PRUNED, build, resolve

WEIGHTS = "weights.safetensors"
SPEC = "model.json"
_ATTRIBUTE = "vitops_spec"
_REMEDY = "bring its whole folder back, or make it again"


class ModelSpec(BaseModel):
    """Everything about a model but its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    builder: dict[str, Any]
    """Parameters of the ``model:`` section it was built from."""
    preprocessing: dict[str, Any]
    """Parameters of the preprocessing it expects (size, mean, std, ...)."""
    classes: list[str]
    """Class names in label order."""
    train_counts: list[int]
    """Training images of each class; empty where it was trained elsewhere."""
    dims: dict[str, Any] | None = None
    """Widths per block of a pruned model; None for a dense one."""


def attach(module: nn.Module, spec: ModelSpec) -> nn.Module:
    """Remember ``spec`` on the module as ``vitops_spec``, where objectives look for class names, mean and std."""
    setattr(module, _ATTRIBUTE, spec)
    return module


def save(folder: Path, module: nn.Module, spec: ModelSpec) -> None:
    """Write the module's state and its spec into ``folder``; the bytes depend on both alone."""
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / SPEC).write_text(text + "\n", encoding="utf-8")


def load(folder: Path) -> tuple[nn.Module, ModelSpec]:
    """Rebuild the model of an artifact folder on the CPU in evaluation mode, with its spec (also attached to it).

    Raises VerificationError when a file is missing, unreadable or does not fit the other.
    """
    spec = _read_spec(folder / SPEC)
    with torch.random.fork_rng(devices=[]):
        module = _skeleton(spec, where=folder / SPEC)
    _fill(module, _read_weights(folder / WEIGHTS), where=folder / WEIGHTS)
    return attach(module.eval(), spec), spec


def _skeleton(spec: ModelSpec, *, where: Path) -> nn.Module:
    if spec.dims is not None:
        module: nn.Module = resolve(PRUNED)(spec.dims)
        return module
    try:
        return build(TypeAdapter(Model).validate_python(spec.builder), classes=len(spec.classes))
    except (ValidationError, UsageError) as error:
        raise VerificationError(f"{where} does not describe a model; {_REMEDY}: {error}") from error


def _read_spec(path: Path) -> ModelSpec:
    try:
        return ModelSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise VerificationError(f"{path} does not describe a model; {_REMEDY}: {error}") from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise VerificationError(f"{path} holds no readable weights; {_REMEDY}: {error}") from error
    return weights


def _fill(module: nn.Module, weights: dict[str, Tensor], *, where: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise VerificationError(
            f"{where} does not fit {SPEC}: {len(names)} tensors differ, first {names[:3]}; {_REMEDY}"
        )
    module.load_state_dict(weights)
