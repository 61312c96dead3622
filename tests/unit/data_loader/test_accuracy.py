import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitops.data.accuracy import class_groups, score
from vitops.errors import VitopsError

CIFAR10_LT_100 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def one_hot(predictions, classes):
    return torch.nn.functional.one_hot(torch.tensor(predictions), classes).float()


def test_groups_by_count_use_strict_bounds_on_both_sides():
    groups = class_groups([101, 100, 20, 19], many=100, few=20)
    assert groups == {"many": [0], "medium": [1, 2], "few": [3]}


def test_cifar10_lt_has_no_few_shot_class_and_reports_none():
    assert class_groups(CIFAR10_LT_100) == {"many": list(range(8)), "medium": [8, 9], "few": []}
    scores = score(one_hot(range(10), 10), torch.arange(10), train_counts=CIFAR10_LT_100)
    assert scores["few"] is None
    assert scores["many"] == scores["medium"] == scores["overall"] == 100.0


def test_official_groups_are_positional_and_named_head_mid_tail():
    scores = score(one_hot([0, 0, 2, 3, 4], 5), torch.arange(5), train_counts=[50, 40, 30, 20, 10], boundaries=(2, 4))
    assert (scores["head"], scores["mid"], scores["tail"]) == (50.0, 100.0, 100.0)
    assert {"many", "medium", "few"} < set(scores)


def test_without_boundaries_there_is_no_positional_group():
    assert "head" not in score(one_hot([0, 1], 2), torch.arange(2), train_counts=[5, 5])


def test_a_class_without_test_samples_is_none_and_does_not_count():
    scores = score(one_hot([0, 1], 3), torch.tensor([0, 0]), train_counts=[9, 9, 9])
    assert scores["per_class"] == [50.0, None, None]
    assert scores["overall"] == 50.0


def test_top5_counts_the_fifth_and_not_the_sixth():
    ranking = torch.tensor([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]).repeat(2, 1)
    assert score(ranking, torch.tensor([4, 5]), train_counts=[1] * 6)["top5"] == 50.0
    assert "top5" not in score(ranking[:, :5], torch.tensor([4, 4]), train_counts=[1] * 5)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 12).flatmap(
        lambda classes: st.tuples(
            st.lists(st.integers(1, 300), min_size=classes, max_size=classes),
            st.integers(1, 4),
            st.integers(0, 2**31),
        )
    )
)
def test_groups_weighted_by_their_classes_give_overall_on_a_balanced_test(case):
    counts, per_class, seed = case
    targets = torch.arange(len(counts)).repeat(per_class)
    logits = torch.randn(len(targets), len(counts), generator=torch.Generator().manual_seed(seed))
    scores = score(logits, targets, train_counts=counts)
    groups = class_groups(counts)
    weighted = sum(scores[name] * len(members) for name, members in groups.items() if members)
    assert weighted / len(counts) == pytest.approx(scores["overall"], abs=1e-3)
    assert sum(scores["per_class"]) / len(counts) == pytest.approx(scores["overall"], abs=1e-3)


@pytest.mark.parametrize(
    ("logits", "targets", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), "disagree about the classes"),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), "empty"),
        (torch.full((1, 4), torch.nan), torch.zeros(1, dtype=torch.long), "NaN"),
        (torch.zeros(1, 4), torch.tensor([4]), "class indices 0..3"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(logits, targets, words):
    with pytest.raises(VitopsError, match=words):
        score(logits, targets, train_counts=[1, 1, 1, 1])


@pytest.mark.parametrize("boundaries", [(0, 2), (2, 2), (3, 2), (1, 4)])
def test_boundaries_must_increase_inside_the_classes(boundaries):
    with pytest.raises(VitopsError, match="boundaries must increase"):
        class_groups([1, 1, 1, 1], boundaries=boundaries)
