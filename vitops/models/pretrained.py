"""Weights that were made elsewhere, put into an architecture.

Laws: only safetensors are read, so that no file can run code. Every tensor of the model comes from the file and every
tensor of the file goes into the model, but for outputs whose class the data does not have; nothing stays as it was
initialised.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from vitops.config.models import TimmModel
from vitops.config.pretrained import Pretrained, TimmWeights
from vitops.errors import UsageError
from vitops.models.registry import build

Shape = tuple[int, ...]
_SHOWN = 5


def pretrained(section: Pretrained, file: Path, *, classes: Sequence[str]) -> nn.Module:
    """The model with the weights in ``file``, its outputs in the order of ``classes``, in evaluation mode.

    Raises UsageError when the weights do not fit the model, or know none of one of the classes.
    """
    names = section.classes or tuple(classes)
    if unknown := [name for name in classes if name not in names]:
        raise UsageError(
            f"classes: none of the {len(names)} outputs is called {_listed(unknown)}, as the dataset has it"
        )
    with torch.random.fork_rng(devices=[]):
        timms = isinstance(section.weights, TimmWeights)
        whole = (_from_timm if timms else _from_file)(section, file, outputs=len(names))
        if names != tuple(classes):
            whole = _chosen(whole, section, rows=[names.index(name) for name in classes])
    return whole.eval()


def check_fit(section: Pretrained, file: Path) -> None:
    """Raise UsageError unless the tensors in ``file`` are those of the model, as far as their names and shapes tell.

    Where ``classes`` is not given, the file says how many outputs there are. What timm publishes is only looked up.
    """
    if isinstance(section.weights, TimmWeights):
        _published(section.weights.timm, outputs=len(section.classes) if section.classes else None)
        _check_arguments(section)
        return
    found = shapes(file)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = build(section.model, classes=2)
        (outputs, *_) = (*found.get(f"{_classifiers(model)[0]}.weight", ()), 2)
        model = build(section.model, classes=len(section.classes) if section.classes else outputs)
    _compare(model, found, where=file)


def shapes(file: Path) -> dict[str, Shape]:
    """Shape of each tensor, by name. Raises UsageError where ``file`` is no safetensors file."""
    try:
        with safe_open(file, "pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{file} cannot be read as safetensors ({error}): no other format is read") from error


def _from_file(section: Pretrained, file: Path, *, outputs: int) -> nn.Module:
    model = build(section.model, classes=outputs)
    _compare(model, shapes(file), where=file)
    model.load_state_dict(load_file(file))
    return model


def _from_timm(section: Pretrained, file: Path, *, outputs: int) -> nn.Module:
    """timm's own way to its own file, which may rename tensors or resize position embeddings."""
    assert isinstance(section.weights, TimmWeights) and isinstance(section.model, TimmModel)
    name = section.weights.timm
    _published(name, outputs=outputs)
    _check_arguments(section)
    args: dict[str, Any] = dict(section.model.args)
    overlay = {"file": str(file), "custom_load": False}
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=True, num_classes=outputs, pretrained_cfg_overlay=overlay, **args
        )
    except (RuntimeError, TypeError, ValueError, AssertionError, SafetensorError) as error:
        raise UsageError(f"timm cannot load {name} from {file}: {error}") from error
    return model


def _check_arguments(section: Pretrained) -> None:
    """Raise UsageError for arguments that are not the configuration's to set, or that the architecture refuses."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        build(section.model, classes=2)


def _published(name: str, *, outputs: int | None) -> None:
    """Raise UsageError for weights that timm does not have under its own name, or with other outputs."""
    if not timm.is_model_pretrained(name):
        near = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        hint = f"it has {', '.join(near)}" if near else "timm.list_pretrained() lists what it has"
        raise UsageError(f"weights.timm: timm {timm.__version__} has no weights {name}; {hint}")
    published = timm.get_pretrained_cfg(name)
    assert published is not None, name
    if published.hf_hub_id != f"timm/{name}" or published.hf_hub_filename:
        raise UsageError(
            f"weights.timm: {name} is no file of timm's own: bring it here as safetensors and name the file"
        )
    if outputs is not None and outputs != published.num_classes:
        raise UsageError(
            f"weights.timm: {name} has {published.num_classes} outputs, but {outputs} classes are named: list the "
            "classes of all its outputs, in order, under classes"
        )


def _compare(model: nn.Module, found: Mapping[str, Shape], *, where: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shared = expected.keys() & found.keys()
    other = [
        f"{name} is {found[name]} and not {expected[name]}" for name in sorted(shared) if found[name] != expected[name]
    ]
    problems = {
        "it lacks": sorted(expected.keys() - found.keys()),
        "it has besides": sorted(found.keys() - expected.keys()),
        "of another shape:": other,
    }
    said = "; ".join(f"{words} {_listed(names)}" for words, names in problems.items() if names)
    if said:
        raise UsageError(f"{where} does not fit the model: {said}. Correct model, or classes where only outputs differ")


def _chosen(whole: nn.Module, section: Pretrained, *, rows: list[int]) -> nn.Module:
    """The model with these outputs of ``whole``, in this order."""
    state = dict(whole.state_dict())
    for name in _classifiers(whole):
        if f"{name}.weight" not in state:
            raise UsageError(
                f"classes: the outputs of {type(whole).__name__} cannot be chosen among; leave classes out"
            )
        for key in {f"{name}.weight", f"{name}.bias"} & state.keys():
            state[key] = state[key][rows]
    model = build(section.model, classes=len(rows))
    model.load_state_dict(state)
    return model


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules whose rows are the outputs."""
    described = getattr(model, "pretrained_cfg", None)
    names = (described or {}).get("classifier") or "head"
    return (names,) if isinstance(names, str) else tuple(names)


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
