"""RandAugment's policy string: what the configuration lets through, timm builds and runs."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from timm.data.auto_augment import rand_augment_transform

from vitops.config.training import Augment, Recipe
from vitops.data.keyed import seeded
from vitops.data.kinds import kind

IMAGES = [np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)] * 2
SECTIONS = {
    "m": st.integers(0, 999).map("m{}".format),
    "n": st.integers(1, 14).map("n{}".format),
    "p": st.sampled_from(["p0", "p0.5", "p1", "p1.0"]),
    "mstd": st.sampled_from(["mstd0", "mstd0.5", "mstd101"]),
    "mmax": st.integers(0, 999).map("mmax{}".format),
    "inc": st.sampled_from(["inc0", "inc1"]),
    "t": st.sampled_from(["tweights", "t3a", "t3aw"]),
}
ODD = st.from_regex(r"(m|n|p|mstd|mmax|inc|t|w|[a-z]{1,3})(weights|3aw?|[0-9.]{0,4})", fullmatch=True)
LOOSE = st.lists(st.one_of(*SECTIONS.values(), ODD), max_size=4).map(lambda sections: "-".join(["rand", *sections]))
"""Sound sections, repeated ones and some that look like one."""


def accepted(policy):
    try:
        return bool(Augment(randaugment=policy))
    except ValidationError:
        return False


def run(policy):
    recipe = Recipe(
        objective={"kind": "cross_entropy"},
        epochs=1,
        micro_batch_size=2,
        preprocessing={"size": 8},
        augment=Augment(randaugment=policy),
        optimizer={"name": "sgd", "lr": 0.1},
    )
    batch = kind("classification").train_batch(recipe, classes=2)
    with seeded(policy):
        batch(IMAGES, np.zeros(2, np.int64), mix=False)


@given(st.permutations(list(SECTIONS)).flatmap(lambda names: st.tuples(*(SECTIONS[name] for name in names))), st.data())
@settings(max_examples=60, deadline=None)
def test_every_section_of_timm_is_accepted_in_any_order(sections, data):
    chosen = data.draw(st.lists(st.sampled_from(sections), unique=True))
    policy = "-".join(["rand", *chosen])
    assert accepted(policy)
    run(policy)


@given(LOOSE)
@settings(max_examples=300, deadline=None)
@example("rand-n15-tweights")
def test_what_is_accepted_runs(policy):
    if accepted(policy):
        run(policy)


@pytest.mark.parametrize(
    "policy",
    ["rand-w0-p0.5", "rand-w0", "rand-m9.5", "rand-n2.0", "rand-p0.5.1", "rand-mstd.5", "rand-x1", "augmix"],
)
def test_what_timm_refuses_is_refused(policy):
    with pytest.raises((AssertionError, ValueError)):
        rand_augment_transform(policy)
    assert not accepted(policy)


@pytest.mark.parametrize("policy", ["rand-n16-tweights", "rand-n15-t3aw"])
def test_more_operations_than_a_weighted_set_has_are_refused(policy):
    with pytest.raises(ValueError, match=r"Fewer non-zero|larger sample"):
        rand_augment_transform(policy)(IMAGES[0])
    assert not accepted(policy)


@pytest.mark.parametrize("policy", ["rand-foo", "rand-mstdinf", "rand-tfoo", "rand-m9-m5", "rand-p1.5", "rand-"])
def test_what_timm_would_take_for_something_else_is_refused(policy):
    rand_augment_transform(policy)
    assert not accepted(policy)
