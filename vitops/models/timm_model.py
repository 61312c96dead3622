"""Any architecture of timm, from scratch: nothing is ever downloaded."""

import difflib
from typing import Any

import timm
from torch import nn

from vitops.config.models import TimmModel
from vitops.errors import UsageError

RESERVED = frozenset({"pretrained", "num_classes", "checkpoint_path", "cache_dir", "pretrained_cfg"})


def build(section: TimmModel, *, classes: int) -> nn.Module:
    """timm's ``section.name`` with ``section.args`` and ``classes`` outputs, freshly initialised.

    A distilled model stays in timm's plain mode, in which its forward gives the mean of both heads; ``models.heads``
    gives them apart. Raises UsageError for an unknown name (with the nearest ones) and for arguments timm refuses.
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
    return model


def _check_name(name: str) -> None:
    known = timm.list_models()
    if name in known:
        return
    near = difflib.get_close_matches(name.partition(".")[0], known, n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists the names it knows."
    raise UsageError(f"model.name: timm {timm.__version__} has no architecture {name!r}; {hint}")
