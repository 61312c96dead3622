"""How far a model's confidence is from its accuracy.

Laws: confidence is the softmax of the predicted class; bins (low, high] have equal width; the error is the mean of
|accuracy - confidence| over the bins, weighted by their images. Figures are percentages rounded to 4 decimals. A cosine
head gives cosines and no scaled logits: its softmax is flat, and its error large by construction.
Source: Guo et al. (ICML 2017), expected calibration error with 15 bins.
"""

from typing import Any

import torch
from torch import Tensor

BINS = 15


def calibration(logits: Tensor, targets: Tensor) -> dict[str, Any]:
    """``ece`` and ``calibration`` of ``logits`` (N, C) against ``targets`` (N,), N at least 1.

    ``calibration`` lists the bins, low to high: ``images``, mean ``confidence`` and ``accuracy`` (None where empty).
    """
    answers = logits.argmax(dim=1)
    confidence = logits.double().softmax(dim=1).gather(1, answers[:, None])[:, 0]  # (N,)
    hits = (answers == targets).double()
    place = torch.bucketize(confidence, torch.arange(1, BINS, dtype=torch.float64) / BINS)
    images = torch.bincount(place, minlength=BINS)
    sure, right = (torch.bincount(place, weights=values, minlength=BINS) for values in (confidence, hits))
    error = float((sure - right).abs().sum()) / len(targets)
    bins = [
        {"images": n, "confidence": _percent(c, n), "accuracy": _percent(r, n)}
        for n, c, r in zip(images.tolist(), sure.tolist(), right.tolist(), strict=True)
    ]
    return {"ece": round(100 * error, 4), "calibration": bins}


def _percent(total: float, images: int) -> float | None:
    return round(100 * total / images, 4) if images else None
