"""A full disk or a kill at every single disk operation leaves a store that verifies and can go on."""

import errno
import os
import resource
import signal
import subprocess
from contextlib import contextmanager

import pytest
from disk_operations import PRIMITIVES

from vitops.errors import VitopsError
from vitops.lineage.ledger import Ledger
from vitops.lineage.verify import verify
from vitops.store import durable
from vitops.store.artifacts import Store


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(name.encode() * 100)
    return folder


def count_calls(monkeypatch, fault):
    """Call ``fault(number)`` before every disk operation."""
    done = []

    def wrap(name):
        real = getattr(durable, name)

        def counted(*args, **kwargs):
            done.append(name)
            fault(len(done))
            return real(*args, **kwargs)

        monkeypatch.setattr(durable, name, counted)

    for name in PRIMITIVES:
        wrap(name)
    return done


def work(home, out, statement):
    ref = Store(home).publish(out, "train")
    Ledger(home).append(statement)
    return ref


def operations(tmp_path, out, small):
    with pytest.MonkeyPatch.context() as patch:
        done = count_calls(patch, lambda number: None)
        work(tmp_path / "rehearsal", out, small())
        return len(done)


def assert_consistent_and_usable(home, out, statement):
    assert verify(home, None) == []
    store, ledger = Store(home), Ledger(home)
    assert all(store.present(digest) for digest in store.digests())
    ref = work(home, out, statement)
    assert store.present(ref.digest)
    assert ledger.sequences() == list(range(len(ledger.sequences())))
    assert verify(home, None) == []
    assert list((home / "tmp").rglob("*.tmp")) == []


def test_a_kill_before_any_disk_operation_leaves_a_consistent_store(tmp_path, out, small):
    total = operations(tmp_path, out, small)
    assert total > 20
    for victim in range(1, total + 1):
        home, pid = tmp_path / f"home-{victim}", os.fork()
        if pid == 0:
            with pytest.MonkeyPatch.context() as patch:
                count_calls(patch, lambda number, at=victim: number == at and os.kill(os.getpid(), signal.SIGKILL))
                work(home, out, small())
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"operation {victim} of {total} was never reached"
        assert_consistent_and_usable(home, out, small())


@pytest.mark.parametrize(("number", "step"), [(errno.ENOSPC, 1), (errno.EIO, 7), (errno.EROFS, 9)])
def test_an_error_of_any_disk_operation_is_named_and_leaves_a_consistent_store(tmp_path, out, small, number, step):
    total = operations(tmp_path, out, small)
    for victim in range(1, total + 1, step):
        home = tmp_path / f"home-{victim}"

        def fail(count, at=victim):
            if count == at:
                raise OSError(number, os.strerror(number))

        with pytest.MonkeyPatch.context() as patch:
            count_calls(patch, fail)
            try:
                work(home, out, small())
            except VitopsError as error:
                assert str(home) in str(error) and "VITOPS_HOME" in str(error)
        assert_consistent_and_usable(home, out, small())


@contextmanager
def small_disk(folder):
    """A file system of 1 MiB; where this user may not mount one, files of at most 400 kB."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_the_store_goes_on_with_what_fits(tmp_path, out, small):
    large = tmp_path / "large"
    large.mkdir()
    for number in range(4):
        (large / str(number)).write_bytes(bytes([number]) * 450_000)
    with small_disk(tmp_path / "disk"):
        home = tmp_path / "disk/home"
        first = Store(home).publish(out, "train")
        with pytest.raises(VitopsError, match=rf"cannot write {home}.*(no space|largest allowed).*run again"):
            Store(home).publish(large, "train")
        assert list((home / "tmp").rglob("*.tmp")) == []
        assert verify(home, None) == []
        store = Store(home)
        assert store.digests() == [first.digest]
        assert store.present(first.digest)


def test_a_read_only_cache_still_answers(tmp_path, out, monkeypatch):
    store = Store(tmp_path / "home")
    ref = store.publish(out, "train")

    def refuse(path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(durable, "_create", refuse)
    fresh = Store(tmp_path / "home")
    assert fresh.present(ref.digest)
    fresh.memo.save()
