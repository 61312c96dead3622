import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitops.evaluation.answers import agreement, confusion
from vitops.evaluation.calibration import BINS, calibration


def logits_of(*confidences):
    """Two-class logits whose softmax gives these probabilities to class 0."""
    p = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], dim=1)


def test_the_calibration_error_is_the_weighted_gap_of_the_bins():
    # Two images at 0.9, one right: gap 0.4. One at 0.6, right: gap 0.4. One at 0.75, right: gap 0.25.
    found = calibration(logits_of(0.9, 0.9, 0.6, 0.75), torch.tensor([0, 1, 0, 0]))
    assert found["ece"] == pytest.approx(100 * (2 * 0.4 + 0.4 + 0.25) / 4)
    filled = [row for row in found["calibration"] if row["images"]]
    assert filled == [
        {"images": 1, "confidence": 60.0, "accuracy": 100.0},
        {"images": 1, "confidence": 75.0, "accuracy": 100.0},
        {"images": 2, "confidence": 90.0, "accuracy": 50.0},
    ]


def test_gaps_of_opposite_sign_cancel_within_a_bin_only():
    # 0.61 right and 0.65 wrong share the bin (9/15, 10/15]: |1 - 1.26| / 2. In two bins the gaps would add up.
    together = calibration(logits_of(0.61, 0.65), torch.tensor([0, 1]))
    assert together["ece"] == pytest.approx(100 * abs(1 - 1.26) / 2)
    apart = calibration(logits_of(0.61, 0.95), torch.tensor([0, 1]))
    assert apart["ece"] == pytest.approx(100 * (0.39 + 0.95) / 2)


def test_bins_hold_their_upper_edge_and_full_confidence_the_last_one():
    sure = calibration(torch.tensor([[200.0, 0.0]]), torch.tensor([0]))
    assert [row["images"] for row in sure["calibration"]] == [0] * (BINS - 1) + [1]
    assert sure["ece"] == 0
    edge = calibration(torch.zeros(1, 5), torch.tensor([4]))  # 0.2 is 3/15, the upper edge of the third bin
    assert [row["images"] for row in edge["calibration"]].index(1) == 2
    assert edge["calibration"][0] == {"images": 0, "confidence": None, "accuracy": None}


def test_confusion_lists_the_pairs_that_occur():
    answers, targets = torch.tensor([0, 2, 2, 1, 1]), torch.tensor([0, 0, 0, 1, 2])
    assert confusion(answers, targets, classes=3) == [[0, 0, 1], [0, 2, 2], [1, 1, 1], [2, 1, 1]]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_every_image_is_in_the_confusion_once_and_the_diagonal_is_what_is_right(pairs):
    targets, answers = (torch.tensor(column) for column in zip(*pairs, strict=True))
    rows = confusion(answers, targets, classes=5)
    assert sum(n for _, _, n in rows) == len(pairs)
    assert sum(n for true, answered, n in rows if true == answered) == int((answers == targets).sum())
    assert len({(true, answered) for true, answered, _ in rows}) == len(rows)


def test_agreement_counts_shared_errors_too():
    targets = torch.tensor([0, 0, 1, 1])
    found = agreement(torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 1]), targets, classes=3)
    assert found == {"overall": 75.0, "per_class": [100.0, 50.0, None]}
