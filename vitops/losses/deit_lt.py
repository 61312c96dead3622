"""DeiT-LT: hard distillation into the DIST token, re-weighted by class from an epoch on.

The teacher, a small CNN, labels the student's own strongly augmented images. CLS learns from the ground truth and
becomes the expert of frequent classes; DIST learns from the teacher under deferred weights and becomes that of the
rare ones.
Source: DeiT-LT (CVPR 2024, arXiv 2404.02900); what its text leaves open is as in the official code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitops.config.objectives import DeitLt as Section
from vitops.errors import UsageError
from vitops.losses.cross_entropy import cross_entropy, label
from vitops.losses.drw import DeferredWeights
from vitops.losses.objective import Contributions, Objective
from vitops.losses.teacher import Teacher, frozen
from vitops.models.heads import TwoHeads, is_distilled, two_heads


@dataclass(frozen=True)
class Parts:
    """The two parts of the loss, each a scalar with its share (1 - alpha, alpha) already applied."""

    base: Tensor
    distill: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.base + self.distill


def deit_lt_loss(
    cls_logits: Tensor,
    dist_logits: Tensor,
    *,
    target: Tensor,
    teacher: Tensor,
    alpha: float,
    weights: Tensor | None = None,
    weight_base: bool = False,
) -> Parts:
    """(1 - alpha) * CE(CLS, ``target``) + alpha * weighted CE(DIST, ``teacher``), for logits (B, C).

    ``target``: (B,) classes or (B, C) soft labels; ``teacher``: its predicted classes (B,). ``weights`` (C,) follow the
    teacher's prediction, not the ground truth, and are normalised within this micro-batch; the CLS part has none,
    or with ``weight_base`` the same ones by the ground truth.
    """
    return Parts(
        base=(1 - alpha) * cross_entropy(cls_logits, target, weights=weights if weight_base else None),
        distill=alpha * cross_entropy(dist_logits, teacher, weights=weights),
    )


class DeitLt(Objective):
    """The objective of a distilled student on long-tailed data.

    Before the DRW epoch labels may be mixed and the weights have no effect; from it on, mixing is off where
    ``mix_off_in_drw`` and the distillation part is weighted (normalised per micro-batch). Per epoch it notes the loss
    and its parts, the mean cosine of the two tokens, and how often the teacher named each class: one it never names
    gives DIST nothing to learn. Raises UsageError for a student without a distillation token and for a missing or
    unfitting teacher (alpha above 0).
    """

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        super().__init__(config, model=model, teachers=teachers, counts=counts)
        if not is_distilled(model):
            raise UsageError(
                f"objective {config.kind} needs a distilled model, e.g. model.name deit_tiny_distilled_patch16_224: "
                f"{type(model).__name__} has no distillation token"
            )
        self._teacher = self._make_teacher() if config.alpha > 0 else None
        self._deferred = DeferredWeights(config.drw, counts=counts)
        self.on_epoch(0)

    def _make_teacher(self) -> Teacher:
        return Teacher(
            frozen(self.teachers, "teacher", objective="deit_lt"),
            student=self.model,
            classes=len(self.counts),
            size=self.config.teacher_size,
            antialias=self.config.teacher_antialias,
            renormalize=self.config.teacher_renormalize,
        )

    def mixes(self, epoch: int) -> bool:
        return not (self.config.mix_off_in_drw and self._deferred.active(epoch))

    def on_epoch(self, epoch: int) -> None:
        self._weights = self._deferred.at(epoch)

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        return self.loss_of(two_heads(self.model, sample["input"]), sample)

    def loss_of(self, student: TwoHeads, sample: dict[str, Tensor]) -> tuple[Tensor, Contributions]:
        """``loss`` of a forward pass that was already made for ``sample["input"]``."""
        # Without a teacher alpha is 0: the true label then only keeps DIST in the graph, with zero gradient.
        named = self._named(sample)
        parts = deit_lt_loss(
            student.cls_logits,
            student.dist_logits,
            target=label(sample),
            teacher=named,
            alpha=self.config.alpha,
            weights=self._weights,
            weight_base=self.config.weight_base,
        )
        return parts.total, self._contributions(student, parts=parts, named=named)

    def _named(self, sample: dict[str, Tensor]) -> Tensor:
        if self._teacher is None:
            return sample["target"]
        return self._teacher.predict(sample["input"], sample.get("position"))

    def _contributions(self, student: TwoHeads, *, parts: Parts, named: Tensor) -> Contributions:
        size = len(named)
        found: Contributions = {
            "loss": parts.total.detach() * size,
            "base": parts.base.detach() * size,
            "distill": parts.distill.detach() * size,
            "cosine": student.cosine.detach().sum(),
            "samples": torch.tensor(size),
        }
        if self._teacher is not None:
            found["teacher_labels"] = torch.bincount(named, minlength=len(self.counts))
        return found
