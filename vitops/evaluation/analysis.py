"""Inside a vision transformer: attention distance per block and head, feature rank per block, diversity of its experts.

Laws: a model is looked at while it predicts clean images in evaluation mode; it is not edited. Where these numbers do
not describe a model, a sentence stands in their place that says why.
Source: DeiT-LT (CVPR 2024), its analyses.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitops.config.training import Preprocessing
from vitops.data.loader import SplitReader, eval_batches
from vitops.errors import VitopsError
from vitops.evaluation.attention import attention_distance, patch_distances
from vitops.evaluation.features import feature_rank
from vitops.evaluation.watching import Seen, watched
from vitops.models.heads import is_distilled, two_heads

JSON = dict[str, Any]

IMAGES = 2048
"""At most so many images, evenly spread over the subset: more than the usual models are wide."""
_BATCH = 32
_PARTS = ("blocks", "patch_embed", "cls_token")


class NotDescribed(VitopsError):
    """These numbers do not describe such a model; the message says why."""


def subset_analysis(model: nn.Module, reader: SplitReader, *, subset: str, preprocessing: Preprocessing) -> JSON:
    """``analysis`` of ``model`` over at most IMAGES images of a subset of an open split."""
    total = reader.size(subset)
    count = min(total, IMAGES)
    chosen = np.arange(count) * total // count
    batches = eval_batches(reader, subset, preprocessing, batch_size=_BATCH, indices=chosen)
    return analysis(model, (batch["input"] for batch in batches))


def analysis(model: nn.Module, batches: Iterable[Tensor]) -> JSON:
    """The numbers of ``model`` over ``batches`` of images (b, 3, H, W), or ``skipped``: the reason.

    ``images``; ``attention_distance`` in pixels (``blocks``: one number per head of each; ``uniform``: what a head has
    that sees all patches alike); ``feature_rank`` of the ``token`` of ``width`` (``blocks``, or ``skipped``);
    ``expert_diversity`` of a distilled model: the mean of 1 - cos(CLS, DIST).
    """
    try:
        inside = _Inside(model.eval())
        with torch.inference_mode():
            for images in batches:
                inside.add(images)
    except NotDescribed as reason:
        return {"skipped": str(reason)}
    return inside.numbers()


def expert_diversity(cosine: float) -> float:
    """1 minus the mean cosine of the two tokens: 0 means that both experts see the same."""
    return round(1 - cosine, 6)


class _Inside:
    """Sums over the batches seen so far."""

    def __init__(self, model: Any) -> None:
        missing = [name for name in _PARTS if getattr(model, name, None) is None]
        if missing:
            wanted = " and no ".join(missing)
            raise NotDescribed(f"{type(model).__name__} is no plain vision transformer: it has no {wanted}")
        self._model = model
        self._blocks: list[nn.Module] = list(model.blocks)
        self._prefix = int(model.num_prefix_tokens)
        self._token = "dist" if is_distilled(model) else "cls"
        self._images, self._cosine = 0, 0.0
        self._distances: list[Tensor] = [torch.zeros(())] * len(self._blocks)  # each (H,), times images
        self._features: list[list[Tensor]] = [[] for _ in self._blocks]  # each (b, E)

    def add(self, images: Tensor) -> None:
        """Look at one more batch (b, 3, H, W)."""
        with watched(self._blocks) as seen:
            if self._token == "dist":
                self._cosine += float(two_heads(self._model, images).cosine.double().sum())
            else:
                self._model(images)
        self._between = self._patch_distances(images)
        for index, block in enumerate(seen):
            attention = self._attention(block, index)
            distances = attention_distance(attention, self._between, prefix=self._prefix)
            self._distances[index] = self._distances[index] + distances * len(images)
            self._features[index].append(block.tokens[:, int(self._token == "dist")])
        self._images += len(images)

    def numbers(self) -> JSON:
        """The means over everything seen."""
        if not self._images:
            raise VitopsError("there is no image to look at the model with: the subset is empty")
        uniform = round(float(self._between.mean()), 4)
        blocks = [[round(value / self._images, 4) for value in heads.tolist()] for heads in self._distances]
        found = {
            "images": self._images,
            "attention_distance": {"uniform": uniform, "blocks": blocks},
            "feature_rank": self._ranks(),
        }
        two = self._token == "dist"
        return found | ({"expert_diversity": expert_diversity(self._cosine / self._images)} if two else {})

    def _ranks(self) -> JSON:
        features = [torch.cat(parts) for parts in self._features]  # each (n, E)
        width = features[0].shape[1]
        told = {"token": self._token, "width": width}
        if self._images <= width:
            return told | {"skipped": f"{self._images} images cannot show the rank of features {width} wide"}
        return told | {"blocks": [feature_rank(block) for block in features]}

    def _patch_distances(self, images: Tensor) -> Tensor:
        height, width = self._model.patch_embed.proj.stride
        return patch_distances((images.shape[-2] // height, images.shape[-1] // width), (height, width))

    def _attention(self, block: Seen, index: int) -> Tensor:
        """The block's attention (b, H, N, N), if it is one over all tokens."""
        name, tokens = type(self._model).__name__, self._prefix + len(self._between)
        if len(block.attention) != 1:
            calls = f"calls fused attention {len(block.attention)} times, not once"
            raise NotDescribed(f"block {index} of {name} {calls} (TIMM_FUSED_ATTN=0 turns it off)")
        if block.attention[0].shape[-2:] != (tokens, tokens):
            shape = tuple(block.attention[0].shape[-2:])
            raise NotDescribed(f"block {index} of {name} has attention {shape}, not one over all its {tokens} tokens")
        return block.attention[0]
