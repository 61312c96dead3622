"""Any architecture of timm, from scratch: nothing is ever downloaded."""

import difflib
from typing import Any

import timm
from torch import nn

from vitops.config.models import TimmModel
from vitops.errors import UsageError
from vitops.models.heads import CosineHead

RESERVED = frozenset({"pretrained", "num_classes", "checkpoint_path", "cache_dir", "pretrained_cfg"})


def build(section: TimmModel, *, classes: int) -> nn.Module:
    """timm's ``section.name`` with ``section.args`` and ``classes`` outputs, freshly initialised.

    A distilled model stays in timm's plain mode, in which its forward gives the mean of both heads; ``models.heads``
    gives them apart. Raises UsageError for an unknown name (with the nearest ones), for arguments timm refuses, and for
    a ``head`` or ``stem`` that the architecture cannot have.
    """
    _check_name(section.name)
    reserved = sorted(RESERVED & section.args.keys())
    if reserved:
        raise UsageError(f"model.args of {section.name} may not set {', '.join(reserved)}: vitops sets them itself")
    args: dict[str, Any] = dict(section.args)
    try:
        model: nn.Module = timm.create_model(section.name, pretrained=False, num_classes=classes, **args)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"timm cannot build {section.name} with model.args {section.args}: {error}") from error
    if section.stem == "small":
        _small_stem(model, section.name)
    if section.head == "cosine":
        _cosine_head(model, section.name)
    return model


def _small_stem(model: nn.Module, name: str) -> None:
    """3x3 in place of 7x7 with stride 2 and pooling, as the official CIFAR code of ResNets has it."""
    old = getattr(model, "conv1", None)
    if not isinstance(old, nn.Conv2d) or not hasattr(model, "maxpool"):
        raise UsageError(f"model.stem: small is for ResNets like resnet18, and {name} has another stem")
    model.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


def _cosine_head(model: nn.Module, name: str) -> None:
    """The one classifier replaced; timm knows its name."""
    config: Any = model.pretrained_cfg
    place: Any = config["classifier"]
    old = model.get_submodule(place) if isinstance(place, str) else None
    if not isinstance(old, nn.Linear):
        raise UsageError(f"model.head: cosine replaces one linear classifier, which {name} does not have")
    model.set_submodule(place, CosineHead(old.in_features, old.out_features))


def _check_name(name: str) -> None:
    known = timm.list_models()
    if name in known:
        return
    near = difflib.get_close_matches(name.partition(".")[0], known, n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists the names it knows."
    raise UsageError(f"model.name: timm {timm.__version__} has no architecture {name!r}; {hint}")
