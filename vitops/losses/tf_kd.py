"""Tf-KD in its regularisation form (Tf-KD_reg): a virtual teacher that is nearly sure of the label.

The other form, Tf-KD_self, is ``kd`` with an earlier copy of the student as the teacher.
Source: Yuan et al. (CVPR 2020), "Revisiting Knowledge Distillation via Label Smoothing Regularization", section 5.2;
what its text leaves open is as in its repository: the softmax is taken of the virtual teacher's *probabilities*, and
the student's logits have no temperature.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vitops.config.objectives import TfKd as Section
from vitops.losses.cross_entropy import cross_entropy, heavier, label, summed
from vitops.losses.objective import Contributions, Objective
from vitops.models.heads import predict

SURE = 0.99
"""The virtual teacher's probability of the label."""


def virtual_teacher_loss(logits: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """KL(softmax(v / T) || softmax(``logits`` (B, C))), a mean over batch *and* classes, in float32.

    v is 0.99 on the class of ``target`` (of a soft label (B, C) the heavier one) and 0.01 / (C - 1) elsewhere.
    """
    logits, classes = logits.float(), logits.shape[1]
    virtual = torch.full_like(logits, (1 - SURE) / (classes - 1)).scatter(1, heavier(target)[:, None], SURE)
    teacher = F.log_softmax(virtual / temperature, dim=1)
    return F.kl_div(F.log_softmax(logits, dim=1), teacher, reduction="sum", log_target=True) / logits.numel()


class TfKd(Objective):
    """L = (1 - alpha) * CE + alpha * multiplier * the virtual teacher's KL."""

    config: Section

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        logits, target = predict(self.model, sample["input"]), label(sample)
        virtual = virtual_teacher_loss(logits, target, temperature=self.config.temperature)
        parts = {
            "base": (1 - self.config.alpha) * cross_entropy(logits.float(), target),
            "virtual": self.config.alpha * self.config.multiplier * virtual,
        }
        return summed(parts, logits=logits, sample=sample)
