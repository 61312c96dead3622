"""What a killed DVC leaves half written is put right, and nothing else is touched."""

import json

import pytest

from vitops.data.dvc_state import mend, writing
from vitops.store import durable

BEFORE = b"schema: '2.0'\nstages:\n  ingest@digits:\n    cmd: vitops data ingest digits\n"
AFTER = BEFORE + b"  split@digits:\n    cmd: vitops data split digits\n"


class Killed(Exception):
    """In place of a SIGKILL: nothing after it in the block is done."""


@pytest.fixture
def in_use(tmp_path):
    path = tmp_path / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "dvc.lock"


def killed_while_writing(root, lock, left):
    """A run whose DVC left this in place of its lock file; None: no file."""
    try:
        with writing(root):
            lock.unlink(missing_ok=True) if left is None else lock.write_bytes(left)
            raise Killed
    except Killed:
        return


@pytest.mark.parametrize("torn", [b"", b'{"write": {"/data": {"pid": 1', b"\xff"])
def test_a_half_written_list_of_users_goes(tmp_path, in_use, torn):
    in_use.write_bytes(torn)
    mend(tmp_path)
    assert not in_use.exists()


def test_a_whole_list_of_users_stays(tmp_path, in_use):
    users = json.dumps({"write": {"/data": {"pid": 1, "cmd": "dvc repro"}}})
    in_use.write_text(users)
    mend(tmp_path)
    assert in_use.read_text() == users


def test_a_list_that_dvc_is_writing_is_waited_for(tmp_path, in_use):
    in_use.write_bytes(b"")
    guard = durable.acquire(in_use.with_name("rwlock.lock"), wait=True)
    in_use.write_bytes(b"{}")
    durable.release(guard)
    mend(tmp_path)
    assert in_use.read_bytes() == b"{}"


@pytest.mark.parametrize("left", [None, b"", BEFORE[:40], AFTER[:-4], b"stages: [\n", b"schema: '2.0'\nstages: {}\n"])
def test_a_half_written_lock_file_comes_back(tmp_path, lock, left):
    lock.write_bytes(BEFORE)
    killed_while_writing(tmp_path, lock, left)
    mend(tmp_path)
    assert lock.read_bytes() == BEFORE


@pytest.mark.parametrize("torn", [b"", b"schema: '2.0'\nsta"])
def test_where_there_was_no_lock_file_a_half_written_one_goes(tmp_path, lock, torn):
    killed_while_writing(tmp_path, lock, torn)
    mend(tmp_path)
    assert not lock.exists()


@pytest.mark.parametrize("before", [BEFORE, None])
def test_a_lock_file_that_was_written_to_its_end_before_the_kill_stays(tmp_path, lock, before):
    if before:
        lock.write_bytes(before)
    killed_while_writing(tmp_path, lock, AFTER)
    mend(tmp_path)
    mend(tmp_path)
    assert lock.read_bytes() == AFTER


def test_what_a_user_broke_is_left_to_dvc(tmp_path, lock):
    with writing(tmp_path):
        lock.write_bytes(AFTER)
    lock.write_bytes(b"stages: [")
    mend(tmp_path)
    with writing(tmp_path):
        assert lock.read_bytes() == b"stages: ["
    assert lock.read_bytes() == b"stages: ["


def test_what_another_process_writes_is_left_alone(tmp_path, lock):
    lock.write_bytes(BEFORE)
    with writing(tmp_path):
        lock.write_bytes(b"")
        mend(tmp_path)
        assert lock.read_bytes() == b""
        lock.write_bytes(AFTER)
    mend(tmp_path)
    assert lock.read_bytes() == AFTER
