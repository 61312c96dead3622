"""Reading features inside a model: one forward pass gives the logits and the outputs of chosen stages.

Laws: logits have the same bits with and without a tap, in training and in evaluation mode; no model is edited. timm's
``forward_intermediates`` does the work; a model that lacks it is hooked for the time of the pass.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from vitops.errors import UsageError
from vitops.models.heads import predict


@dataclass(frozen=True)
class Feature:
    """The output of one stage: a map (B, D, h, w) or patches (B, N, D), and the class token (B, D) where there is one.

    A token has seen no norm after its block.
    """

    output: Tensor
    token: Tensor | None = None

    @property
    def pooled(self) -> Tensor:
        """(B, D): the class token, else the mean over all places."""
        if self.token is not None:
            return self.token
        return self.output.mean((2, 3)) if self.output.ndim == 4 else self.output.mean(1)

    @property
    def map(self) -> Tensor:
        """(B, D, h, w). Raises UsageError for patches that are no square."""
        if self.output.ndim == 4:
            return self.output
        side = math.isqrt(self.output.shape[1])
        if side * side != self.output.shape[1]:
            raise UsageError(f"{self.output.shape[1]} patches are no square: features of this model give no map")
        return self.output.transpose(1, 2).reshape(len(self.output), -1, side, side)  # (B, N, D) -> (B, D, h, w)


@dataclass(frozen=True)
class Tapped:
    """Logits (B, C) of the mean head, and a feature per tap."""

    logits: Tensor
    features: tuple[Feature, ...] = ()


@dataclass(frozen=True)
class _Stages:
    """What can be tapped: modules in their order, their output widths, whether they are the blocks of a plain ViT."""

    names: list[str]
    widths: list[int]
    alike: bool

    @property
    def middle(self) -> int:
        """The block after which half of the depth is done; of a hierarchical model the last stage but one."""
        return max(0, (len(self.names) // 2 if self.alike else len(self.names) - 1) - 1)


class Tap:
    """Taps of one model, by stage: a stage of a CNN or of Swin, a block of a ViT."""

    def __init__(self, model: nn.Module, places: Sequence[int | None] = (None,), *, key: str) -> None:
        """``places``: stages from 0, or from -1 backwards; None is the middle one. ``key``: the knob, for messages.

        The middle is that of USKD (ICCV 2023), whose features it was chosen for. Raises UsageError for a place that the
        model does not have, naming those it has, and for a model whose stages are unknown.
        """
        self._model = model
        self._stages = _stages(model, key=key)
        self.places = tuple(self._place(place, key=key) for place in places)
        self.widths = tuple(self._stages.widths[place] for place in self.places)
        """D of each feature, as the model says."""

    def __call__(self, x: Tensor) -> Tapped:
        """One forward pass for images (B, 3, H, W)."""
        run = getattr(self._model, "forward_intermediates", None)
        logits, outputs = self._hooked(x) if run is None else self._intermediates(run, x)
        return Tapped(logits, tuple(outputs[place] for place in self.places))

    def _intermediates(self, run: Any, x: Tensor) -> tuple[Tensor, dict[int, Feature]]:
        order = sorted(set(self.places))
        # CaiT and XCiT have a class token, but add it behind their stages and do not know the argument.
        splits = _prefix(self._model) and "return_prefix_tokens" in run.__code__.co_varnames
        form = {"return_prefix_tokens": True, "output_fmt": "NLC"} if splits else {}
        final, outputs = run(x, indices=order, **form)
        logits = cast(Tensor, self._model.forward_head(final))  # type: ignore[operator]
        pairs = (output if form else (output, None) for output in outputs)
        return logits, {
            place: self._feature(output, prefix) for place, (output, prefix) in zip(order, pairs, strict=True)
        }

    def _hooked(self, x: Tensor) -> tuple[Tensor, dict[int, Feature]]:
        outputs: dict[int, Feature] = {}

        def keep(place: int, module: nn.Module, inputs: Any, output: Tensor) -> None:
            count = _prefix(self._model)
            outputs[place] = self._feature(output[:, count:], output[:, :count]) if count else self._feature(output)

        stages = {place: self._model.get_submodule(self._stages.names[place]) for place in set(self.places)}
        handles = [stage.register_forward_hook(partial(keep, place)) for place, stage in stages.items()]
        try:
            logits = predict(self._model, x)
        finally:
            for handle in handles:
                handle.remove()
        return logits, outputs

    def _feature(self, output: Tensor, prefix: Tensor | None = None) -> Feature:
        has_token = prefix is not None and getattr(self._model, "cls_token", None) is not None
        return Feature(output, token=prefix[:, 0] if prefix is not None and has_token else None)

    def _place(self, place: int | None, *, key: str) -> int:
        names = self._stages.names
        if place is None:
            return self._stages.middle
        if not -len(names) <= place < len(names):
            raise UsageError(
                f"objective.{key}: got {place}, but {type(self._model).__name__} has the taps 0 to {len(names) - 1}: "
                f"{', '.join(names)}"
            )
        return place % len(names)


def _prefix(model: nn.Module) -> int:
    """Tokens before the patches: CLS, DIST, registers; 0 of a model that has none."""
    count = getattr(model, "num_prefix_tokens", 0)
    assert isinstance(count, int)
    return count


def _stages(model: nn.Module, *, key: str) -> _Stages:
    """From timm's ``feature_info``, or from the children of ``stages`` or ``blocks``."""
    if hasattr(model, "feature_info"):
        entries = [dict(entry) for entry in cast(list[dict[str, Any]], model.feature_info)]
        alike = len({entry["reduction"] for entry in entries}) == 1
        return _Stages([entry["module"] for entry in entries], [entry["num_chs"] for entry in entries], alike)
    for container in ("blocks", "stages"):
        children = dict(getattr(model, container, nn.Module()).named_children())
        if children:
            names = [f"{container}.{name}" for name in children]
            return _Stages(names, [_width(child) for child in children.values()], alike=container == "blocks")
    raise UsageError(f"objective.{key}: nothing says which stages {type(model).__name__} has, so none can be tapped")


def _width(module: nn.Module) -> int:
    """Output width: that of the last convolution or linear layer."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    last = layers[-1]
    return last.out_channels if isinstance(last, nn.Conv2d) else last.out_features
