"""Splits: the papers' selection, and keyed ranks that do not move."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitops.config.datasets import HoldoutSplit, LongtailSplit, PerClassTest, SubsetTest
from vitops.data import table
from vitops.data.configured import SplitConfig
from vitops.data.splits import stage
from vitops.data.splits.holdout import holdout
from vitops.data.splits.longtail import longtail, longtail_counts, official_selection
from vitops.data.splits.members import Population, first_ranks
from vitops.errors import UsageError
from vitops.store import manifest

SIZES = (60, 50, 40)


def population(sizes=SIZES, subset="") -> Population:
    rng, samples = np.random.RandomState(0), sum(sizes)
    return Population(
        slots=np.arange(samples, dtype=np.uint32),
        labels=np.repeat(np.arange(len(sizes)), sizes).astype(np.uint16),
        digests=rng.randint(0, 256, (samples, 32)).astype(np.uint8),
        subsets=np.full(samples, subset, dtype="<U8"),
        classes=tuple("abcdefgh"[: len(sizes)]),
    )


def without(people: Population, position: int) -> Population:
    kept = np.delete(np.arange(len(people.slots)), position)
    return replace(
        people,
        slots=people.slots[kept],
        labels=people.labels[kept],
        digests=people.digests[kept],
        subsets=people.subsets[kept],
    )


LONGTAIL = LongtailSplit(imbalance_factor=4, n_max=20, test=PerClassTest(count=5), val_per_class=3)
HOLDOUT = HoldoutSplit(test=PerClassTest(count=5), val_per_class=3)


@pytest.mark.parametrize(("factor", "total"), [(10, 20431), (20, 17023), (50, 13996), (100, 12406), (200, 11203)])
def test_cifar10_lt_totals_are_the_published_ones(factor, total):
    assert longtail_counts(50_000, classes=10, imbalance="exp", imbalance_factor=factor).sum() == total


def test_step_imbalance_counts_the_odd_last_class_to_the_tail():
    assert longtail_counts(500, classes=5, imbalance="step", imbalance_factor=10).tolist() == [100, 100, 10, 10, 10]


def test_factor_one_keeps_everything():
    assert longtail_counts(90, classes=3, imbalance="exp", imbalance_factor=1).tolist() == [30, 30, 30]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"imbalance": "log", "imbalance_factor": 10}, "exp or step"),
        ({"imbalance": "exp", "imbalance_factor": 0.01}, r"write 100, not 0\.01"),
        ({"imbalance": "exp", "imbalance_factor": 1000}, "without a sample"),
    ],
)
def test_impossible_long_tails_are_refused(arguments, match):
    with pytest.raises(UsageError, match=match):
        longtail_counts(100, classes=4, **arguments)


def test_the_official_selection_leaves_numpys_global_state_alone():
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    official_selection(np.repeat([0, 1], 10), np.array([5, 2]), seed=0)
    assert np.array_equal(np.random.get_state()[1], before)


def test_the_official_selection_is_independent_of_how_labels_are_interleaved():
    labels = np.tile([0, 1, 2], 30)
    blocks = official_selection(np.sort(labels), np.array([20, 9, 4]), seed=5)
    mixed = official_selection(labels, np.array([20, 9, 4]), seed=5)
    assert (mixed // 3).tolist() == (blocks % 30).tolist()


@pytest.mark.parametrize("select", [(longtail, LONGTAIL), (holdout, HOLDOUT)])
def test_subsets_are_disjoint_and_have_the_counts_asked_for(select):
    function, config = select
    people = population()
    found = function(config, people, name="s")
    parts = [found.train, found.val, found.test]
    everything = np.concatenate(parts)
    assert len(set(everything.tolist())) == len(everything)
    counts = [np.bincount(people.labels[part], minlength=3).tolist() for part in parts]
    assert counts[1:] == [[3, 3, 3], [5, 5, 5]]
    assert counts[0] == ([20, 10, 5] if function is longtail else [52, 42, 32])


@pytest.mark.parametrize("selection", ["keyed", "official"])
def test_validation_comes_from_what_the_selection_left_out(selection):
    config = LONGTAIL.model_copy(update={"selection": selection, "val_per_class": 1000})
    people = population()
    found = longtail(config, people, name="s")
    assert len(found.train) + len(found.val) + len(found.test) == len(people.slots)
    assert not set(found.train.tolist()) & set(found.val.tolist())


def test_removing_an_unselected_sample_changes_nothing_in_a_keyed_split():
    people = population()
    found = longtail(LONGTAIL, people, name="s")
    chosen = set(np.concatenate([found.train, found.val, found.test]).tolist())
    for position in sorted(set(range(len(people.slots))) - chosen):
        rest = without(people, position)
        again = longtail(LONGTAIL, rest, name="s")
        for part in ("train", "val", "test"):
            assert rest.slots[getattr(again, part)].tolist() == getattr(found, part).tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 34))
def test_removing_a_selected_sample_lets_the_next_rank_move_up(index):
    people, counts = population(), np.array([20, 10, 5])
    before = first_ranks(people, np.arange(150), counts, name="s", seed=0)
    rest = without(people, int(before[index]))
    after = rest.slots[first_ranks(rest, np.arange(149), counts, name="s", seed=0)]
    assert len(set(before.tolist()) - set(after.tolist())) == len(set(after.tolist()) - set(before.tolist())) == 1
    label = people.labels[before[index]]
    kept = [one for one in before.tolist() if people.labels[one] == label and one != before[index]]
    assert [one for one in after.tolist() if people.labels[one] == label][:-1] == kept


def test_seed_and_name_each_give_another_selection():
    people, counts = population(), np.array([20, 10, 5])
    found = {
        tuple(first_ranks(people, np.arange(150), counts, name=name, seed=seed).tolist())
        for name in ("s", "t")
        for seed in (0, 1)
    }
    assert len(found) == 4


def test_equal_first_eight_bytes_are_ordered_by_the_rest_of_the_digest():
    people = population()
    people.digests[:60, :8] = 7
    order = first_ranks(people, np.arange(150), np.array([60, 0, 0]), name="s", seed=0)
    tails = [bytes(people.digests[one, 8:]) for one in order]
    assert tails == sorted(tails)


def test_the_source_subset_is_the_test_set():
    people = population()
    people.subsets[::2] = "test"
    people.subsets[1::2] = "train"
    found = holdout(HoldoutSplit(test=SubsetTest(name="test"), val_per_class=2), people, name="s")
    assert found.test.tolist() == list(range(0, 150, 2))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (HoldoutSplit(test=SubsetTest(name="test")), "no subset 'test'.*kind: per_class"),
        (HoldoutSplit(test=PerClassTest(count=40)), "class 'c' has 40 samples.*below 40"),
        (LongtailSplit(imbalance_factor=1, n_max=60, test=PerClassTest(count=5)), r"set n_max to at most 35"),
    ],
)
def test_splits_that_cannot_be_made_name_their_key_and_the_way_out(config, match):
    with pytest.raises(UsageError, match=rf"datasets\.pets\.splits\.s: .*{match}"):
        stage.select(config, population(), dataset="pets", name="s")


def test_a_split_without_validation_images_is_refused():
    config = LongtailSplit(imbalance_factor=1, n_max=10, test=PerClassTest(count=2))
    with pytest.raises(UsageError, match="nothing is left out for validation"):
        stage.select(config, population((12, 12)), dataset="pets", name="s")


@pytest.fixture
def shards(tmp_path):
    people, folder = population(), tmp_path / "shards"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"classes": list(people.classes)}))
    blank = {name: [None] * len(people.slots) for name in table.SAMPLES.names}
    own = {
        "slot": people.slots,
        "label": people.labels,
        "sha256": [bytes(one).hex() for one in people.digests],
        "subset": people.subsets.tolist(),
    }
    table.write(folder / "samples.parquet", {**blank, **own}, table.SAMPLES)
    return folder


def publish(shards, out, **splits):
    stage.split(shards, SplitConfig(task="classification", splits=splits), dataset="pets", out=out)
    return {name: manifest.check(out / name) for name in splits}


def test_each_split_has_its_own_digest_that_no_other_split_touches(shards, tmp_path):
    both = publish(shards, tmp_path / "a", tail=LONGTAIL, whole=HOLDOUT)
    assert publish(shards, tmp_path / "b", tail=LONGTAIL) == {"tail": both["tail"]}
    assert both["tail"] != both["whole"]


def test_split_files_hold_slots_and_labels_in_order(shards, tmp_path):
    publish(shards, tmp_path / "a", tail=LONGTAIL)
    people, facts = stage.read_population(shards), json.loads((tmp_path / "a/tail/split.json").read_text())
    rows = table.read(tmp_path / "a/tail/train.parquet")
    assert [str(field.type) for field in rows.schema] == ["uint32", "uint16"]
    assert rows["slot"].to_pylist() == longtail(LONGTAIL, people, name="tail").train.tolist()
    assert facts["train_counts"] == [20, 10, 5]
    assert facts["config"] == LONGTAIL.parameters()
