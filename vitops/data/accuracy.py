"""Accuracy of logits: overall, per class and by group of classes.

Laws: every figure is a percentage rounded to 4 decimals; a group without test samples is ``None``, never 0; on a test
set with equally many samples per class the group accuracies, weighted by their class numbers, give the overall one.
Groups by training count (many, medium, few) and the official positional ones (head, mid, tail) are different things
and keep different names: with the usual thresholds CIFAR-10-LT has no few-shot class at all.
Source: DeiT-LT (2024), evaluation protocol.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitops.errors import VitopsError

Groups = dict[str, list[int]]


def class_groups(
    train_counts: Sequence[int], *, many: int = 100, few: int = 20, boundaries: tuple[int, int] | None = None
) -> Groups:
    """Class indices of each group: many (> ``many`` training images), few (< ``few``), medium (the rest).

    With ``boundaries`` (b1, b2) also head [0, b1), mid [b1, b2) and tail [b2, C) by class index.
    Raises VitopsError when ``few`` exceeds ``many`` + 1 or the boundaries do not increase within the classes.
    """
    if few > many + 1:
        raise VitopsError(
            f"evaluate.few ({few}) must not exceed evaluate.many ({many}) by more than 1: a class would be both"
        )
    by_count: Groups = {"many": [], "medium": [], "few": []}
    for label, count in enumerate(train_counts):
        by_count["many" if count > many else "few" if count < few else "medium"].append(label)
    return by_count | (_positional(len(train_counts), boundaries) if boundaries is not None else {})


def _positional(classes: int, boundaries: tuple[int, int]) -> Groups:
    first, second = boundaries
    if not 0 < first < second < classes:
        raise VitopsError(
            f"evaluate.boundaries must increase inside 1..{classes - 1} for {classes} classes, got [{first}, {second}]"
        )
    return {
        "head": list(range(first)),
        "mid": list(range(first, second)),
        "tail": list(range(second, classes)),
    }


def score(
    logits: Tensor,
    targets: Tensor,
    *,
    train_counts: Sequence[int],
    many: int = 100,
    few: int = 20,
    boundaries: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Accuracy of ``logits`` (N, C) against ``targets`` (N,) class indices.

    ``overall``, ``many``, ``medium``, ``few`` and, with ``boundaries``, ``head``, ``mid``, ``tail``: percent or None;
    ``per_class``: C of them; ``top5`` where C > 5. Raises VitopsError for an empty test set or non-finite logits.
    """
    classes = len(train_counts)
    _check(logits, targets, classes=classes)
    hits = logits.argmax(dim=1) == targets
    totals = torch.bincount(targets, minlength=classes)
    correct = torch.bincount(targets[hits], minlength=classes)
    scores: dict[str, Any] = {"overall": _percent(correct, totals, range(classes))}
    if classes > 5:
        scores["top5"] = _top(logits, targets, k=5)
    for name, members in class_groups(train_counts, many=many, few=few, boundaries=boundaries).items():
        scores[name] = _percent(correct, totals, members)
    return scores | {"per_class": [_percent(correct, totals, [label]) for label in range(classes)]}


def _check(logits: Tensor, targets: Tensor, *, classes: int) -> None:
    if logits.ndim != 2 or logits.shape[1] != classes or targets.shape != logits.shape[:1]:
        raise VitopsError(
            f"expected logits (N, {classes}) and targets (N,), got {tuple(logits.shape)} and {tuple(targets.shape)}: "
            "the model and the split disagree about the classes"
        )
    if len(targets) == 0:
        raise VitopsError("there is no sample to score: the subset is empty; let the split give it at least one image")
    if int(targets.min()) < 0 or int(targets.max()) >= classes:
        raise VitopsError(
            f"targets must be class indices 0..{classes - 1}, got {int(targets.min())}..{int(targets.max())}"
        )
    if not bool(torch.isfinite(logits).all()):
        raise VitopsError(
            "the logits hold NaN or infinity: the model is broken, and argmax would still return a class; "
            "train it again with a lower optimizer.lr"
        )


def _percent(correct: Tensor, totals: Tensor, members: Sequence[int]) -> float | None:
    chosen = torch.as_tensor(list(members), dtype=torch.long)
    total = int(totals[chosen].sum())
    return round(100.0 * int(correct[chosen].sum()) / total, 4) if total else None


def _top(logits: Tensor, targets: Tensor, *, k: int) -> float:
    found = (logits.topk(k, dim=1).indices == targets[:, None]).any(dim=1)
    return round(100.0 * int(found.sum()) / len(targets), 4)
