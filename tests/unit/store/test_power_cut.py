"""The fault tests' power cut takes what was not synced and nothing else."""

import os
import signal

import pytest
from disk_operations import Fault, Operations, faults

from vitops.store import durable


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def struck(work, number, kind):
    """Do the work in a child that ends with the fault at its operation of that number."""
    pid = os.fork()
    if pid == 0:
        with Operations(Fault("main", number, kind)) as operations:
            operations.begin()
            work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def rehearsed(work):
    with Operations() as operations:
        operations.begin()
        work()
    return [name for _, name in operations.done]


@pytest.fixture
def home(tmp_path):
    durable.write_bytes(tmp_path / "kept", b"old")
    durable.write_bytes(durable.make_folder(tmp_path / "full") / "file", b"within")
    return tmp_path


def write(home):
    return lambda: durable.write_bytes(home / "kept", b"new")


# create, write, sync of the file, rename, sync of the folder, unlink of what is no more
@pytest.mark.parametrize(
    ("number", "kind", "kept"),
    [(3, "cut", b"old"), (4, "before", b"old"), (5, "cut", b"old"), (4, "early", b"new"), (6, "end", b"new")],
)
def test_a_replaced_file_is_the_old_one_until_its_folder_is_synced(home, number, kind, kept):
    struck(write(home), number, kind)
    found = files(home)
    assert found.pop("kept") == kept
    assert found.pop("full/file") == b"within"
    assert (len(found) == 1) == (kind == "before")  # a kill leaves the unfinished file, a cut does not


def test_bytes_that_were_not_synced_are_lost_with_the_name_kept_or_with_it(home):
    def careless():
        durable.write_bytes(home / "cache", b"new", sync=False)

    struck(careless, 3, "lost")
    assert files(home)["cache"] == b""
    (home / "cache").unlink()
    struck(careless, 3, "early")
    assert files(home)["cache"] == b""
    (home / "cache").unlink()
    struck(careless, 4, "end")
    assert "cache" not in files(home)


def test_what_replaced_bytes_that_were_not_synced_does_not_save_them(home):
    durable.write_bytes(home / "cache", b"durable")

    def careless():
        with (home / "cache").open("wb") as stream:
            durable._write(stream.fileno(), b"first")
        durable.write_bytes(home / "cache", b"second", sync=False)

    struck(careless, 5, "end")
    assert files(home)["cache"] == b""


def test_a_removed_folder_comes_back_with_its_files(home):
    def work():
        durable.remove(home / "full")

    assert rehearsed(work) == ["_unlink", "_rmdir", "_sync"]
    durable.write_bytes(durable.make_folder(home / "full") / "file", b"within")
    struck(work, 3, "cut")
    assert files(home) == {"kept": b"old", "full/file": b"within"}
    struck(work, 3, "end")
    assert files(home) == {"kept": b"old"}


def test_a_folder_that_was_moved_unsynced_is_back_with_what_was_written_in_it_undone(home):
    def work():
        durable._rename(home / "full", home / "moved")
        durable._create(home / "moved/more")
        durable._sync_folder(home)

    assert len(rehearsed(work)) == 3
    (home / "moved/more").unlink()
    (home / "moved").rename(home / "full")
    struck(work, 3, "cut")
    assert files(home) == {"kept": b"old", "full/file": b"within"}
    struck(work, 3, "end")
    assert files(home) == {"kept": b"old", "moved/file": b"within"}


def test_a_rename_between_folders_is_settled_by_the_folder_it_leads_to(home):
    def work(settled):
        durable._rename(home / "kept", home / "full/kept")
        durable._sync_folder(settled)

    struck(lambda: work(home), 2, "end")
    assert files(home) == {"kept": b"old", "full/file": b"within"}
    struck(lambda: work(home / "full"), 2, "end")
    assert files(home) == {"full/kept": b"old", "full/file": b"within"}


def test_every_sync_and_every_rename_is_a_point_at_which_the_power_is_cut(home):
    done = [("main", name) for name in rehearsed(write(home))]
    told = [(fault.number, fault.kind) for fault in faults(done)]
    assert [one for one in told if one[1] not in ("before", "after")] == [
        *((2, "torn"), (3, "cut"), (4, "lost"), (4, "early"), (5, "cut"), (6, "end")),
    ]
