"""Canonical JSON and durable operations."""

import errno
import json
import multiprocessing
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitops.errors import VitopsError
from vitops.store import canonical, durable

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def encodable(value) -> bool:
    return "\\ud" not in json.dumps(value)


@given(values.filter(encodable))
def test_canonical_json_reads_back_to_the_same_value(value):
    assert json.loads(canonical.dumps(value)) == value
    assert json.loads(canonical.pretty(value)) == value


@given(st.dictionaries(st.text().filter(encodable), st.integers()), st.randoms())
def test_order_of_keys_does_not_change_the_digest(value, random):
    items = list(value.items())
    random.shuffle(items)
    assert canonical.digest(dict(items)) == canonical.digest(value)


def test_canonical_form_is_frozen():
    assert canonical.dumps({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()
    assert canonical.digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_json_cannot_hold_is_refused_naming_the_file(tmp_path, value):
    with pytest.raises(ValueError):
        canonical.dumps([value])
    with pytest.raises(VitopsError, match=r"history\.json"):
        canonical.write_json(tmp_path / "history.json", [value])
    assert not (tmp_path / "history.json").exists()


def test_create_only_keeps_the_first_and_leaves_nothing_aside(tmp_path):
    path = tmp_path / "entry"
    assert durable.create_only(path, b"first")
    assert not durable.create_only(path, b"second")
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["entry"]


def test_a_failed_write_leaves_the_old_file_and_names_the_way_out(tmp_path, monkeypatch):
    path = tmp_path / "file"
    durable.write_bytes(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "_sync", full)
    with pytest.raises(VitopsError, match=rf"{path}.*VITOPS_HOME"):
        durable.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_an_error_without_a_known_way_out_is_not_disguised(tmp_path):
    with pytest.raises(FileNotFoundError):
        durable.write_bytes(tmp_path / "absent" / "file", b"")


def test_a_copy_whose_bytes_are_not_expected_never_appears(tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 3_000_000)
    found = durable.copy(tmp_path / "source", tmp_path / "target", expected="0" * 64)
    assert found == canonical.sha256_file(tmp_path / "source")
    assert not (tmp_path / "target").exists()
    assert durable.copy(tmp_path / "source", tmp_path / "target", expected=found) == found
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_rename_dir_does_not_replace_a_filled_folder(tmp_path):
    for name in ("new", "old"):
        durable.make_folder(tmp_path / name)
        durable.write_bytes(tmp_path / name / "file", name.encode())
    assert not durable.rename_dir(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old/file").read_bytes() == b"old"
    assert durable.rename_dir(tmp_path / "new", tmp_path / "other")
    assert not (tmp_path / "new").exists()


def test_a_lock_excludes_threads_and_is_free_afterwards(tmp_path):
    inside, most = [], []

    def enter():
        with durable.locked(tmp_path / "lock"):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    held = durable.acquire(tmp_path / "lock", wait=False)
    assert held is not None
    assert durable.acquire(tmp_path / "lock", wait=False) is None
    durable.release(held)


def hold_and_wait(path, ready):
    durable.acquire(path, wait=True)
    ready.set()
    threading.Event().wait()


def test_death_frees_a_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold_and_wait, args=(tmp_path / "lock", ready))
    process.start()
    assert ready.wait(20)
    assert durable.acquire(tmp_path / "lock", wait=False) is None
    process.kill()
    process.join()
    assert durable.acquire(tmp_path / "lock", wait=False) is not None
