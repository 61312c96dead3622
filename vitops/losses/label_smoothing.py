"""Label smoothing: part of the label's weight is spread over the classes.

Source: Szegedy et al. (CVPR 2016), equation 13 (``all``, as torch and timm do it); the form that leaves 1 - e on the
target and e / (C - 1) on each other class (``others``) is that of the Tf-KD repository (yuanli2333/Teacher-free-...).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vitops.config.objectives import LabelSmoothing as Section
from vitops.losses.cross_entropy import label, tally
from vitops.losses.objective import Contributions, Objective
from vitops.models.heads import predict


def smoothed_cross_entropy(logits: Tensor, target: Tensor, *, smoothing: float, spread: str = "all") -> Tensor:
    """Mean cross-entropy of ``logits`` (B, C) with smoothed labels, a scalar, in float32.

    ``target``: (B,) classes or (B, C) soft labels, each class of which is smoothed by its own weight. ``spread``:
    ``all`` puts e/C on every class, ``others`` e/(C-1) on every class but the target.
    """
    logits, classes = logits.float(), logits.shape[1]
    if spread == "all":
        return F.cross_entropy(logits, target, label_smoothing=smoothing)
    soft = target if target.is_floating_point() else F.one_hot(target, classes).to(logits)
    return F.cross_entropy(logits, torch.lerp((1 - soft) / (classes - 1), soft, 1 - smoothing))


class LabelSmoothing(Objective):
    """Smoothed cross-entropy of the prediction."""

    config: Section

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        logits = predict(self.model, sample["input"])
        loss = smoothed_cross_entropy(logits, label(sample), smoothing=self.config.smoothing, spread=self.config.spread)
        return loss, tally(logits, sample, loss=loss)
