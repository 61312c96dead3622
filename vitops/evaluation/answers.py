"""What a model answers, counted: which classes it confuses, and where it agrees with its teacher."""

from typing import Any

import torch
from torch import Tensor


def confusion(answers: Tensor, targets: Tensor, *, classes: int) -> list[list[int]]:
    """Rows [true class, answered class, images] of predicted classes (N,) against ``targets`` (N,), in that order.

    Only pairs that occur: a full table of many classes would be nearly all zeros.
    """
    pairs, images = torch.unique(targets * classes + answers, return_counts=True)
    return [[pair // classes, pair % classes, n] for pair, n in zip(pairs.tolist(), images.tolist(), strict=True)]


def agreement(answers: Tensor, teacher: Tensor, targets: Tensor, *, classes: int) -> dict[str, Any]:
    """How often ``answers`` (N,) name the class that the ``teacher``'s (N,) do, right or wrong, in percent.

    ``overall``, and ``per_class`` by true class: None for a class without images.
    """
    same = answers == teacher
    images = torch.bincount(targets, minlength=classes).tolist()
    agreed = torch.bincount(targets[same], minlength=classes).tolist()
    per_class = [round(100 * a / n, 4) if n else None for a, n in zip(agreed, images, strict=True)]
    return {"overall": round(100 * int(same.sum()) / len(targets), 4), "per_class": per_class}
