"""Stat records: when a remembered value may be used."""

import os
import time

import pytest

from vitops.store import cache_file
from vitops.store.stat_memo import COARSE_TICK, FINE_TICK, SECOND, StatMemo, _settled


@pytest.fixture
def counted(tmp_path):
    """A file older than the clock's tick, and a computation that counts its calls."""
    path, calls = tmp_path / "file", []
    path.write_bytes(b"first")
    time.sleep(0.03)

    def compute(file):
        calls.append(file)
        return file.read_text()

    return path, compute, calls


def test_an_untouched_file_is_computed_once_even_by_another_process(tmp_path, counted):
    path, compute, calls = counted
    memo = StatMemo(tmp_path / "cache")
    assert memo.value("text", path, compute) == memo.value("text", path, compute) == "first"
    memo.save()
    assert StatMemo(tmp_path / "cache").value("text", path, compute) == "first"
    assert len(calls) == 1


def test_the_memo_saves_itself_when_it_ends(tmp_path, counted):
    path, compute, calls = counted
    StatMemo(tmp_path / "cache").value("text", path, compute)
    StatMemo(tmp_path / "cache").value("text", path, compute)
    assert len(calls) == 1


def rewrite(path):
    path.write_bytes(b"other")


def rewrite_and_restore_mtime(path):
    before = path.stat()
    path.write_bytes(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path):
    aside = path.with_name("aside")
    aside.write_bytes(b"other")
    os.utime(aside, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    aside.replace(path)


@pytest.mark.parametrize("change", [rewrite, rewrite_and_restore_mtime, replace])
def test_a_change_of_the_same_size_is_seen(tmp_path, counted, change):
    path, compute, _ = counted
    memo = StatMemo(tmp_path / "cache")
    assert memo.value("text", path, compute) == "first"
    change(path)
    assert memo.value("text", path, compute) == "other"


def test_an_edit_right_after_the_computation_is_never_missed(tmp_path):
    path, memo = tmp_path / "file", StatMemo(tmp_path / "cache")
    for number in range(300):
        path.write_text(f"{number:05d}")
        assert memo.value("text", path, lambda file: file.read_text()) == f"{number:05d}"
        with path.open("r+") as stream:
            stream.write("edit!")
        assert memo.value("text", path, lambda file: file.read_text()) == "edit!"


def test_a_fresh_ctime_is_not_trusted_and_a_coarse_one_for_longer():
    fine, coarse = 5 * SECOND + 123, 5 * SECOND
    assert not _settled([1, 1, fine, 1], fine + FINE_TICK)
    assert _settled([1, 1, fine, 1], fine + FINE_TICK + 1)
    assert not _settled([1, 1, coarse, 1], coarse + COARSE_TICK)
    assert _settled([1, 1, coarse, 1], coarse + COARSE_TICK + 1)
    assert not _settled([1, 1, fine + SECOND, 1], fine)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, counted):
    path, compute, calls = counted
    memo = StatMemo(tmp_path / "cache")

    def slow(file):
        text = compute(file)
        file.write_bytes(b"later")
        return text

    memo.value("text", path, slow)
    assert memo.value("text", path, compute) == "later"
    assert len(calls) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"x" * 100, None])
def test_a_damaged_memo_costs_time_and_no_answer(tmp_path, counted, damage):
    path, compute, calls = counted
    memo = StatMemo(tmp_path / "cache")
    memo.value("text", path, compute)
    memo.save()
    file = tmp_path / "cache/text.json"
    raw = file.read_bytes()
    file.write_bytes(raw.replace(b"first", b"lying") if damage is None else damage)
    assert StatMemo(tmp_path / "cache").value("text", path, compute) == "first"
    assert len(calls) == 2


def test_two_memos_keep_each_other_s_entries(tmp_path, counted):
    path, compute, calls = counted
    other = tmp_path / "other"
    other.write_bytes(b"2")
    time.sleep(0.03)
    one, two = StatMemo(tmp_path / "cache"), StatMemo(tmp_path / "cache")
    one.value("text", path, compute)
    two.value("text", other, compute)
    one.save()
    two.save()
    three = StatMemo(tmp_path / "cache")
    assert [three.value("text", file, compute) for file in (path, other)] == ["first", "2"]
    assert len(calls) == 2


def test_a_group_is_computed_again_when_a_file_of_it_appears(tmp_path, counted):
    path, _, _ = counted
    absent, memo, calls = tmp_path / "absent", StatMemo(tmp_path / "cache"), []
    for _ in range(2):
        memo.group("dvc", "digits", [path, absent], lambda: calls.append(1))
    assert len(calls) == 1
    absent.write_bytes(b"")
    memo.group("dvc", "digits", [path, absent], lambda: calls.append(1))
    assert len(calls) == 2


def test_forget_makes_it_compute_again(tmp_path, counted):
    path, compute, calls = counted
    memo = StatMemo(tmp_path / "cache")
    memo.value("text", path, compute)
    memo.forget("text", path)
    memo.value("text", path, compute)
    assert len(calls) == 2


def test_entries_of_files_that_are_gone_are_dropped(tmp_path, counted):
    path, compute, _ = counted
    other = tmp_path / "other"
    other.write_bytes(b"2")
    time.sleep(0.03)
    memo = StatMemo(tmp_path / "cache")
    memo.value("text", path, compute)
    memo.group("text", "both", [path, other], lambda: "both")
    memo.save()
    path.unlink()
    memo.value("text", other, compute)
    memo.save()
    assert set(cache_file.load(tmp_path / "cache/text.json")) == {str(other), "both"}
