"""Which processes belong to a run, and who may end them."""

import os
import subprocess
import sys
from contextlib import ExitStack, suppress

import psutil
import pytest

from vitops.cli import family
from vitops.cli.family import Family, end_family, end_leftovers, mark
from vitops.plan.record import write_atomically
from vitops.plan.request import RunRequest
from vitops.plan.runs import begun
from vitops.store.process import find, start_of


@pytest.fixture
def folder(tmp_path):
    """Of a run."""
    folder = tmp_path / "runs/a"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def supervisor(folder):
    """This process, until it is closed."""
    with ExitStack() as supervisor:
        supervisor.enter_context(begun(folder, RunRequest(pipeline="tiny")))
        yield supervisor


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


def test_what_no_list_has_is_ended_by_the_mark_in_its_environment(folder, start):
    young, other = start(**mark(folder)), start(**mark(folder.with_name("b")))
    end_family(folder / "processes.json")
    assert ended(young)
    assert other.poll() is None


def test_the_watcher_ends_what_was_started_a_moment_before_the_kill(folder, start):
    young = start(**mark(folder))
    subprocess.run([sys.executable, "-m", "vitops.cli.watch", str(folder / "processes.json")], input=b"", check=True)
    assert ended(young)


def test_the_watcher_waits_for_a_supervisor_that_has_closed_its_files_and_is_about_to_die(folder, start, supervisor):
    young = start(**mark(folder))
    write_atomically(folder / "processes.json", {"descendants": []})
    command = [sys.executable, "-m", "vitops.cli.watch", str(folder / "processes.json")]
    watcher = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        watcher.wait(timeout=3)
    supervisor.close()
    watcher.wait(timeout=10)
    assert ended(young)


def test_a_supervisor_whose_child_died_ends_what_the_child_had_just_started(folder, start):
    young = start(**mark(folder))
    Family(folder / "processes.json", start().pid).end()
    assert ended(young)


@pytest.mark.usefixtures("supervisor")
def test_a_run_whose_supervisor_lives_is_left_alone(folder, start):
    child = start(**mark(folder))
    Family(folder / "processes.json", child.pid).note()
    end_leftovers(folder.parent)
    assert child.poll() is None and (folder / "processes.json").exists()


def test_the_next_run_ends_what_the_list_has(folder, start):
    child = start()
    Family(folder / "processes.json", child.pid).note()
    end_leftovers(folder.parent)
    assert ended(child)
    assert not (folder / "processes.json").exists()


@pytest.mark.parametrize("torn", [b"", b'{"descendants": [[1', b"{}", b"[]", b"\xff"])
def test_a_list_that_cannot_be_read_is_no_obstacle(folder, torn):
    (folder / "processes.json").write_bytes(torn)
    end_leftovers(folder.parent)
    assert not (folder / "processes.json").exists()


def test_a_step_of_the_clock_makes_no_other_process_of_a_listed_one(folder, start, monkeypatch):
    child = start()
    Family(folder / "processes.json", child.pid).note()
    booted = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted + 3600.0)
    end_leftovers(folder.parent)
    assert ended(child)


def test_a_reused_pid_is_another_process():
    started = start_of(os.getpid())
    boot, _, ticks = started.partition(":")
    assert find((os.getpid(), started)).pid == os.getpid()
    assert find((os.getpid(), f"{boot}:{int(ticks) - 1}")) is None
    assert find((os.getpid(), f"another start:{ticks}")) is None


def test_what_cannot_be_ended_is_named(folder, start, monkeypatch, caplog):
    child = start(**mark(folder))
    monkeypatch.setattr(family, "END_SECONDS", 0.3)
    monkeypatch.setattr(psutil.Process, "kill", refused)
    end_family(folder / "processes.json")
    assert f"process {child.pid}" in caplog.text and "still lives" in caplog.text


def refused(process):
    raise psutil.AccessDenied(process.pid)
