"""A run that is stopped in a stage that does not listen, or killed while Prefect's server starts."""

import json
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from project import TINY, Project

COMMAND = ("run", "tiny", "--file", str(TINY), "--json")
INGEST = (
    "    with open_source(config.source, root) as reader:\n        items = reader.items()\n        if arrivals.arrive"
)
EXPORT = '    model, spec = load(job.inputs["model"])\n    preprocessing'
GRACE = 30
"""Seconds that a container runtime waits after SIGTERM."""
PATIENCE = 120


def deafen(project, file, line):
    """Have the function with this line sleep for ten minutes before it."""
    path = project.folder / file
    text = path.read_text()
    assert text.count(line) == 1
    path.write_text(text.replace(line, f"    import time\n\n    time.sleep(600)\n{line}"))


def running(project, stage):
    """Whether a run is in this stage."""
    files = project.folder.glob(".vitops/runs/*/run.json")
    stages = [one for file in files for one in json.loads(file.read_text())["stages"]]
    return (stage, "running") in [(one["name"], one["status"]) for one in stages]


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


def terminate(process):
    """SIGTERM to the command alone, as Kubernetes does."""
    process.terminate()


def terminate_all(process):
    """SIGTERM to every process of the run, as systemd does."""
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            one.terminate()


def stopped_in(project, stage, *, ask=terminate):
    process = project.start(*COMMAND)
    wait_until(lambda: running(project, stage), process)
    time.sleep(3)
    assert running(project, stage)
    ask(process)
    asked = time.monotonic()
    process.communicate(timeout=PATIENCE)
    return process.returncode, time.monotonic() - asked


@pytest.mark.parametrize("ask", [terminate, terminate_all])
def test_a_data_stage_that_does_not_listen_is_over_within_the_grace_of_a_container(tmp_path, ask):
    project = Project(tmp_path, code=True)
    deafen(project, "vitops/data/ingest.py", INGEST)
    code, seconds = stopped_in(project, "ingest", ask=ask)
    assert code == 75 and seconds < GRACE
    assert left_behind(tmp_path) == []


def test_another_stage_that_does_not_listen_is_too(road, tmp_path):
    project = road.project.copy(tmp_path)
    deafen(project, "vitops/compression/export.py", EXPORT)
    code, seconds = stopped_in(project, "export")
    assert code == 75 and seconds < GRACE
    assert left_behind(tmp_path) == []


def test_no_server_survives_a_kill_of_the_command_while_it_starts(tmp_path):
    project = Project(tmp_path)
    process = project.start(*COMMAND)
    wait_until(lambda: any("uvicorn" in command for command in working_in(tmp_path)), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert left_behind(tmp_path) == []
