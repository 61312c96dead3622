"""A command that is killed while Prefect's server starts."""

import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
from project import TINY, Project

COMMAND = ("run", "tiny", "--file", str(TINY), "--json")
PATIENCE = 120


def wait_until(condition, process):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    return found


def left_behind(folder):
    """Processes that work in the project some seconds after the command has ended."""
    deadline = time.monotonic() + 10
    while (there := working_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return there


def working_in(folder):
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder:
                found.append(process.cmdline())
    return found


def test_no_server_survives_a_kill_of_the_command_while_it_starts(tmp_path):
    project = Project(tmp_path)
    process = project.start(*COMMAND)
    wait_until(lambda: any("uvicorn" in command for command in working_in(tmp_path)), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert left_behind(tmp_path) == []
