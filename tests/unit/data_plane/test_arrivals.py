"""Arrivals: slots never move, however a source grows and shrinks."""

import errno
import hashlib
import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitops.data import arrivals
from vitops.data.arrivals import Slot
from vitops.errors import VitopsError
from vitops.store import durable


def slot(number: int) -> Slot:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Slot(digest[:20], digest)


histories = st.lists(st.sets(st.integers(0, 40), min_size=1), min_size=1, max_size=8)


def replay(history, shard_size=4):
    versions, known = [], ()
    for present in history:
        known = arrivals.arrive(known, [slot(one) for one in sorted(present)], shard_size=shard_size)
        versions.append(known)
    return versions


def flat(known):
    return [one for arrival in known for one in arrival.slots]


@settings(max_examples=100, deadline=None)
@given(histories)
def test_the_live_slots_are_the_samples_present_each_once(history):
    for present, known in zip(history, replay(history), strict=True):
        live = [one for one in flat(known) if one is not None]
        assert sorted(live, key=str) == sorted(map(slot, present), key=str)
        assert arrivals.live(known) == len(present)


@settings(max_examples=100, deadline=None)
@given(histories)
def test_a_slot_keeps_its_sample_or_becomes_a_tombstone_for_ever(history):
    versions = replay(history)
    for older, newer in itertools.pairwise(versions):
        for before, after in zip(flat(older), flat(newer), strict=False):
            assert after in (before, None)


@settings(max_examples=100, deadline=None)
@given(histories)
def test_shards_are_numbered_without_gaps_and_old_boundaries_stay(history):
    versions = replay(history)
    for known in versions:
        found = list(arrivals.shards(known))
        assert [one.first for one in found] == [sum(len(s.slots) for s in found[:i]) for i in range(len(found))]
        assert [one for shard in found for one in shard.slots] == flat(known)
        assert all(1 <= len(shard.slots) <= 4 for shard in found)
    for older, newer in itertools.pairwise(versions):
        assert [(s.name, s.first) for s in arrivals.shards(newer)][: len(list(arrivals.shards(older)))] == [
            (s.name, s.first) for s in arrivals.shards(older)
        ]


@settings(max_examples=50, deadline=None)
@given(histories)
def test_the_file_gives_back_what_was_written(tmp_path_factory, history):
    known = replay(history)[-1]
    path = tmp_path_factory.mktemp("a") / "arrivals.json"
    arrivals.write(path, known)
    assert arrivals.read(path) == known


def test_nothing_new_changes_nothing():
    known = arrivals.arrive((), [slot(1), slot(2)], shard_size=1)
    assert arrivals.arrive(known, [slot(2), slot(1)], shard_size=1) == known


def test_a_sample_that_comes_back_gets_a_new_slot():
    *_, known = replay([{1, 2}, {2}, {1, 2}])
    assert [arrival.slots for arrival in known] == [(None, slot(2)), (slot(1),)]


def test_another_shard_size_moves_boundaries_and_no_slot():
    known = replay([{1, 2, 3}, {1, 2, 3, 4}])[-1]
    other = arrivals.arrive(known, [slot(one) for one in (1, 2, 3, 4)], shard_size=2)
    assert flat(other) == flat(known)
    assert [arrival.shards for arrival in other] == [(2, 1), (1,)]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"arrivals": [{"shards": [2], "slots": [null]}]}', '{"arrivals": [{"shards": [1], "slots": ["x y"]}]}'],
)
def test_a_damaged_file_is_refused_with_the_way_out(tmp_path, text):
    (tmp_path / "arrivals.json").write_text(text)
    with pytest.raises(VitopsError, match="dvc checkout"):
        arrivals.read(tmp_path / "arrivals.json")


def test_a_missing_file_is_an_empty_beginning(tmp_path):
    assert arrivals.read(tmp_path / "arrivals.json") == ()


def test_arrivals_whose_writing_breaks_off_are_the_previous_ones(tmp_path, monkeypatch):
    before, after = replay([{1, 2}, {1, 2, 3}])
    file = tmp_path / "arrivals.json"
    arrivals.write(file, before)

    def half(descriptor, data):
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(durable, "_write", half)
        with pytest.raises(VitopsError, match=r"arrivals\.json"):
            arrivals.write(file, after)
    assert arrivals.read(file) == before
    arrivals.write(file, after)
    assert arrivals.read(file) == after
