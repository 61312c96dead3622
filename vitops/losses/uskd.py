"""USKD: distillation without a teacher, from soft labels made of the student's own logits and middle features.

Source: Yang et al. (ICCV 2023, arXiv 2303.13005), "From Knowledge Distillation to Self-Knowledge Distillation",
section 3.2; what its text leaves open, and the rank by log-probabilities, is as in its repository (yzd-v/cls_KD).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitops.config.objectives import Uskd as Section
from vitops.errors import UsageError
from vitops.losses.cross_entropy import label, summed
from vitops.losses.label_smoothing import smoothed_cross_entropy
from vitops.losses.objective import Contributions, Objective
from vitops.models.tap import Tap

_EPS = 1e-6
_WEAK_SMOOTHING = 0.1


@dataclass(frozen=True)
class Targets:
    """The target classes of a batch: ``index`` (B, k) and ``weight`` (B, k); k is 1 for hard labels, 2 for soft ones.

    An entry with weight 0 is no target: its class stays among the others.
    """

    index: Tensor
    weight: Tensor

    def removed(self, classes: int) -> Tensor:
        """Which of ``classes`` are targets, (B, C) bool."""
        mask = torch.zeros(len(self.index), classes, dtype=torch.bool, device=self.index.device)
        return mask.scatter(1, self.index, self.weight > 0)


def targets(target: Tensor, *, dtype: torch.dtype = torch.float32) -> Targets:
    """Of ``target``, (B,) classes or (B, C) soft labels: the class, or the two heaviest ones."""
    if target.is_floating_point():
        weight, index = target.to(dtype).topk(2, dim=1)
        return Targets(index, weight)
    return Targets(target[:, None], torch.ones(len(target), 1, dtype=dtype, device=target.device))


@torch.no_grad()
def soft_target(logits: Tensor, found: Targets) -> Tensor:
    """Labels (B, k) of the target classes: label + p^2 - mean of p^2; 0 where there is none.

    The mean is over those images of this micro-batch that have such a target (the official code also counts the class
    of a zero weight, which may be any): per micro-batch, as the official code takes it per device, hence independent of
    the number of workers.
    """
    there = found.weight > 0
    squared = F.softmax(logits, dim=1).gather(1, found.index).square() * there
    return (squared + found.weight - squared.sum(0) / there.sum(0).clamp(min=1)) * there


@torch.no_grad()
def rank(logits: Tensor, weak_logits: Tensor, removed: Tensor, *, mode: str = "code") -> Tensor:
    """Place (B, C) of each class in the descending order of its score, from 0, targets included; ties by class.

    The score adds the weak head's probability and the prediction's, each over what the non-target classes hold.
    ``mode``: ``code`` takes log-probabilities of the prediction, as the official code does; ``paper`` probabilities.
    """
    weak, own = F.softmax(weak_logits, dim=1), F.log_softmax(logits, dim=1)
    own = own.exp() if mode == "paper" else own
    score = sum(part / (1 - (part * removed).sum(1, keepdim=True) + _EPS) for part in (weak, own))
    assert isinstance(score, Tensor)
    return score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def zipf(position: Tensor, removed: Tensor) -> Tensor:
    """Labels (B, C) of the non-target classes: 1 / (place + 1), 0 for targets, scaled so that each row sums to 1."""
    label = (1 / (position + 1)).masked_fill(removed, 0)
    return label / label.sum(1, keepdim=True)


@dataclass(frozen=True)
class Parts:
    """The three parts of the loss without their weights: scalars."""

    target: Tensor
    nontarget: Tensor
    weak: Tensor


def uskd_loss(logits: Tensor, weak_logits: Tensor, target: Tensor, *, mode: str = "code") -> Parts:
    """USKD for logits (B, C) of the prediction and of the weak head, in float32.

    ``target``: (B,) classes or (B, C) soft labels without smoothing, of which the two heaviest classes are targets.
    Gradients reach the prediction through ``target`` and ``nontarget``, the weak head through ``weak`` alone.
    """
    logits, weak_logits = logits.float(), weak_logits.float()
    found = targets(target)
    removed = found.removed(logits.shape[1])
    log_target = F.log_softmax(logits, dim=1).gather(1, found.index)
    labels = zipf(rank(logits, weak_logits, removed, mode=mode), removed)
    log_rest = F.log_softmax(logits.masked_fill(removed, -torch.inf), dim=1).masked_fill(removed, 0)
    return Parts(
        target=-(soft_target(logits, found) * log_target).sum(1).mean(),
        nontarget=-(labels * log_rest).sum(1).mean(),
        weak=F.cross_entropy(weak_logits, target, label_smoothing=_WEAK_SMOOTHING),
    )


class Uskd(Objective):
    """L = CE + alpha * target + beta * non-target + mu * weak; USKD is added to the cross-entropy.

    The middle features (``mid_tap``) feed one linear head, which is trained beside the model and is no part of it.
    Raises UsageError for fewer than three classes, and for a tap that the model does not have.
    """

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        super().__init__(config, model=model, teachers=teachers, counts=counts)
        if len(counts) < 3:
            raise UsageError(f"objective uskd ranks the classes other than the target: it needs 3, got {len(counts)}")
        self._tap = Tap(model, (config.mid_tap,), key="mid_tap")
        self.auxiliary = nn.ModuleDict({"weak": nn.Linear(self._tap.widths[0], len(counts))})

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        student, target, config = self._tap(sample["input"]), label(sample), self.config
        weak_logits = self.auxiliary["weak"](student.features[0].pooled.float())
        found = uskd_loss(student.logits, weak_logits, target, mode=config.rank_mode)
        parts = {
            "base": smoothed_cross_entropy(student.logits, target, smoothing=config.label_smoothing),
            "target": config.alpha * found.target,
            "nontarget": config.beta * found.nontarget,
            "weak": config.mu * found.weak,
        }
        return summed(parts, logits=student.logits, sample=sample)
