"""A writer that was given up, stopped or orphaned, and goes on later: it changes nothing that a later attempt needs."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
import torch

from vitops.store import durable
from vitops.store.job import Position
from vitops.store.scratch import Scratch
from vitops.training.checkpoint import Checkpoints, Saved

WRITER = f"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
import torch
from vitops.errors import Interrupted
from vitops.store import durable
from vitops.store.job import Position
from vitops.training.checkpoint import Checkpoints, Saved

checkpoints = Checkpoints(Path(sys.argv[1]))
for step in (1, 2):
    checkpoints.save(Position(epoch=0, step=step), Saved({{"x": torch.tensor([float(step)])}}, {{"step": step}}))
real, left = getattr(durable, sys.argv[2]), int(sys.argv[3])

def stopping(*arguments, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    return real(*arguments, **options)

setattr(durable, sys.argv[2], stopping)
try:
    checkpoints.save(Position(epoch=0, step=3), Saved({{"x": torch.tensor([3.0])}}, {{"step": 3}}))
    print("saved")
except Interrupted as error:
    print("refused:", error)
"""
MOMENTS = [("make_folder", 1), ("write_hashed", 2), ("write_bytes", 1), ("rename_dir", 1), ("rename_dir", 2)]
"""Operations of one save, before which the writer is stopped; the last one removes what is too old."""


def saved(step):
    return Saved({"x": torch.tensor([float(step)])}, {"step": step})


def steps(folder):
    return sorted(int(path.name[9:18]) for path in folder.glob("e*"))


@pytest.fixture
def stopped(tmp_path):
    """Starts a writer and waits until it stops itself at a moment of its third save."""
    started = []

    def start(operation, count):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), operation, str(count)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), process.communicate()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def gone_on(process):
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@pytest.mark.parametrize(("operation", "count"), MOMENTS)
def test_a_writer_that_was_superseded_while_it_was_stopped_takes_nothing_away(operation, count, stopped, tmp_path):
    process = stopped(operation, count)
    later = Checkpoints(tmp_path)
    newest, damaged = later.newest()
    resumed = newest.record["step"]
    later.save(Position(epoch=0, step=resumed + 1), saved(resumed + 1))
    before = steps(tmp_path)
    said = gone_on(process)
    assert damaged == []
    assert said.startswith("refused: another run") or operation == "rename_dir"
    assert set(before[-2:]) <= set(steps(tmp_path))
    later.save(Position(epoch=0, step=resumed + 2), saved(resumed + 2))
    again, damaged = Checkpoints(tmp_path).newest()
    assert (again.record["step"], damaged) == (resumed + 2, [])
    assert not list(tmp_path.glob("dead-*"))


def test_a_writer_whose_training_another_run_finished_leaves_no_checkpoint(stopped, tmp_path):
    process = stopped("rename_dir", 1)
    shutil.rmtree(tmp_path)
    assert gone_on(process).startswith("refused: another run has finished or removed the training")
    assert steps(tmp_path) == []


def test_a_writer_is_not_taken_for_the_one_that_has_its_number_now(stopped, tmp_path):
    """The stage was finished, its checkpoints removed, and later begun anew: attempt 1 is another one."""
    process = stopped("write_hashed", 1)
    shutil.rmtree(tmp_path)
    fresh = Checkpoints(tmp_path)
    fresh.save(Position(epoch=0, step=1), saved(1))
    assert gone_on(process).startswith("refused: another run")
    assert steps(tmp_path) == [1]
    fresh.save(Position(epoch=0, step=2), saved(2))


def filling(folder, monkeypatch):
    """Let an orphan write another file into the folder when a folder is removed, once."""
    real = durable._rmdir

    def filled_meanwhile(path):
        monkeypatch.setattr(durable, "_rmdir", real)
        with suppress(FileNotFoundError):
            (folder / "late").write_bytes(b"late")
        real(path)

    monkeypatch.setattr(durable, "_rmdir", filled_meanwhile)


def test_a_start_is_not_disturbed_by_a_writer_that_still_writes(tmp_path, monkeypatch):
    aside = tmp_path / "aside-e000000-s000000002-a000001"
    aside.mkdir()
    (aside / "state.safetensors").write_bytes(b"torn")
    filling(aside, monkeypatch)
    Checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["attempts"]


def test_opening_a_store_does_not_fail_when_an_orphan_fills_the_dead_ones_folder(tmp_path, monkeypatch):
    """The folder of a dead process cannot be removed then; the next opening does it."""
    folder = tmp_path / "17-abcdef"
    folder.mkdir()
    (tmp_path / "17-abcdef.lock").touch()
    filling(folder, monkeypatch)
    Scratch(tmp_path)
    assert folder.exists()
    Scratch(tmp_path)
    assert not folder.exists()
