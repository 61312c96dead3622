"""Which processes belong to a run, and who may end them."""

import os
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from vitops.cli.family import Family, end_family, end_leftovers, mark
from vitops.plan.record import write_atomically
from vitops.plan.request import RunRequest
from vitops.plan.runs import SUPERVISOR, begin
from vitops.store.process import Process


@pytest.fixture
def folder(tmp_path):
    """A run of this process."""
    folder = tmp_path / "runs/a"
    folder.mkdir(parents=True)
    begin(folder, RunRequest(pipeline="tiny"))
    return folder


@pytest.fixture
def start():
    """Start a process that waits for ever, in a session of its own."""
    started = []

    def start(**environment):
        process = subprocess.Popen(
            [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        process.stdout.read(1)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process):
    """Whether the process ends within seconds; its exit code may be lost, for who ends it also waits for it."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    return not psutil.pid_exists(process.pid)


def supervise(folder, process):
    """The run's supervisor is this process."""
    write_atomically(folder / SUPERVISOR, Process.of(process.pid).model_dump())


def lose_supervisor(folder, process):
    """The run's supervisor was this process, which is killed."""
    supervise(folder, process)
    process.kill()
    process.wait()


def test_what_no_list_has_is_ended_by_the_mark_in_its_environment(folder, start):
    young, other = start(**mark(folder)), start(**mark(folder.with_name("b")))
    lose_supervisor(folder, start())
    end_family(folder / "processes.json")
    assert ended(young)
    assert other.poll() is None


def test_the_watcher_ends_what_was_started_a_moment_before_the_kill(folder, start):
    young = start(**mark(folder))
    lose_supervisor(folder, start())
    subprocess.run([sys.executable, "-m", "vitops.cli.watch", str(folder / "processes.json")], input=b"", check=True)
    assert ended(young)


def test_the_watcher_waits_for_a_supervisor_that_has_closed_its_files_and_is_about_to_die(folder, start):
    young, supervisor = start(**mark(folder)), start()
    supervise(folder, supervisor)
    write_atomically(folder / "processes.json", {"descendants": []})
    command = [sys.executable, "-m", "vitops.cli.watch", str(folder / "processes.json")]
    watcher = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        watcher.wait(timeout=3)
    supervisor.kill()
    supervisor.wait()
    watcher.wait(timeout=10)
    assert ended(young)


def test_a_supervisor_whose_child_died_ends_what_the_child_had_just_started(folder, start):
    young = start(**mark(folder))
    Family(folder / "processes.json", start().pid).end()
    assert ended(young)


def test_a_run_whose_supervisor_lives_is_left_alone(folder, start):
    child = start(**mark(folder))
    Family(folder / "processes.json", child.pid).note()
    end_leftovers(folder.parent)
    assert child.poll() is None and (folder / "processes.json").exists()


def test_the_next_run_ends_what_the_list_has(folder, start):
    child = start()
    Family(folder / "processes.json", child.pid).note()
    lose_supervisor(folder, start())
    end_leftovers(folder.parent)
    assert ended(child)
    assert not (folder / "processes.json").exists()


@pytest.mark.parametrize("torn", [b"", b'{"descendants": [[1', b"{}", b"[]", b"\xff"])
def test_a_list_that_cannot_be_read_is_no_obstacle(folder, start, torn):
    lose_supervisor(folder, start())
    (folder / "processes.json").write_bytes(torn)
    end_leftovers(folder.parent)
    assert not (folder / "processes.json").exists()


def test_a_step_of_the_clock_makes_no_other_process_of_a_living_one(folder, start, monkeypatch):
    child, supervisor = start(**mark(folder)), start()
    supervise(folder, supervisor)
    family = Family(folder / "processes.json", child.pid)
    booted = psutil.boot_time()
    for step in (3600.0, -3600.0):
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda step=step: booted + step)
        family.note()
        end_leftovers(folder.parent)
        assert child.poll() is None
    lose_supervisor(folder, supervisor)
    end_leftovers(folder.parent)
    assert ended(child)
