"""Any objective trains any family of models, exact and fast, and goes on after a kill to all bits of the whole."""

import json

import pytest
import torch.multiprocessing
from objective_matrix import KILLED_AFTER, PAIRS, STEPS, TRAINED, configured, rank_main, train, whole_and_resumed
from pydantic import ValidationError
from synthetic_split import write_split

from vitops.training import Comm

WORLD, SWITCH = 2, 2
ALONE = {"comm": Comm.single(), "mode": "exact"}
PLAIN = ("vit", "swin", "cnn", "cosine")
REFUSED = {
    **{
        (kind, family): "no DIST token to learn from the teacher"
        for kind in ("deit_lt", "deit_soft")
        for family in PLAIN
    },
    **{("ldam", family): "must be cosine for ldam" for family in ("vit", "swin", "cnn", "deit")},
    ("paco", "cosine"): "must be linear for paco",
    ("paco", "deit"): "must have one head for paco",
    **{("nvit", family): "guides pruning and fine-tuning" for family in (*PLAIN, "deit")},
}
"""Pairs that make no sense -> what the configuration says about them."""


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("matrix"), train=8 * STEPS)


@pytest.fixture(scope="module")
def fast(split, tmp_path_factory):
    """What every rank of one process group found, by pair."""
    root = tmp_path_factory.mktemp("fast")
    torch.multiprocessing.spawn(rank_main, (WORLD, split, root), nprocs=WORLD)
    return [json.loads((root / f"{rank}.json").read_text()) for rank in range(WORLD)]


@pytest.mark.parametrize(("kind", "family"), sorted(REFUSED))
def test_a_pair_that_makes_no_sense_is_refused_with_the_reason(kind, family):
    with pytest.raises(ValidationError, match=REFUSED[kind, family]):
        configured(kind, family)


def test_every_other_pair_is_trained():
    assert set(TRAINED) == set(PAIRS) - set(REFUSED)


@pytest.mark.parametrize(("kind", "family"), TRAINED)
def test_exact_goes_on_to_the_bits_of_the_whole(kind, family, split, tmp_path):
    config = configured(kind, family)
    whole, resumed, place = whole_and_resumed(split, tmp_path, config, family, **ALONE)
    assert resumed == whole
    assert STEPS < place <= KILLED_AFTER, "the resume was to be in the middle of the second epoch"


@pytest.mark.parametrize("epoch", [SWITCH - 1, SWITCH, SWITCH + 1])
@pytest.mark.parametrize(("kind", "family"), [("deit_lt", "deit"), ("ldam", "cosine")])
def test_a_kill_around_the_drw_switch_changes_nothing(kind, family, epoch, split, tmp_path):
    config = configured(kind, family, changes={"drw": {"epoch": SWITCH}}, epochs=SWITCH + 2)
    steps = epoch * STEPS + 1
    whole, resumed, place = whole_and_resumed(split, tmp_path, config, family, kill_after=steps, **ALONE)
    assert resumed == whole
    assert steps - 2 <= place <= steps


def test_paco_with_sam_goes_on_to_the_bits_of_the_whole(split, tmp_path):
    config = configured("paco", "cnn", changes={"queue": 12, "momentum": 0.5}, sam={"rho": 0.05})
    whole, resumed, place = whole_and_resumed(split, tmp_path, config, "cnn", **ALONE)
    assert resumed == whole and place > STEPS


def test_the_drw_switch_changes_something(split, tmp_path):
    found = [
        train(split, tmp_path / str(drw), configured("ldam", "cosine", changes={"drw": drw}), "cosine", **ALONE)[0]
        for drw in (None, {"epoch": 1})
    ]
    assert found[0] != found[1]


@pytest.mark.parametrize(("kind", "family"), TRAINED)
def test_fast_goes_on_to_the_bits_of_the_whole(kind, family, fast):
    found = [answers[f"{kind}-{family}"] for answers in fast]
    whole, resumed, place = found[0]
    assert resumed == whole
    assert found == [found[0]] * WORLD
    assert STEPS < place <= KILLED_AFTER
