"""What a flow process does when Prefect's server does not answer."""

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import __main__ as child
from flows import server
from vitops.errors import VitopsError
from vitops.plan.record import write_atomically
from vitops.plan.request import RunRequest

REQUEST = RunRequest(pipeline="tiny")


def unreachable():
    try:
        raise httpx.ConnectError("connection refused")
    except httpx.ConnectError as error:
        raise RuntimeError("Failed to reach API") from error


@pytest.fixture
def flow(monkeypatch):
    """What each call of the flow does, in turn; and the server that it was to talk to."""
    calls, urls = [], []

    def run(_request):
        urls.append(PREFECT_API_URL.value())
        calls.pop(0)()

    monkeypatch.setattr(child, "_flow", run)
    with temporary_settings(updates={PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        yield calls, urls


def test_a_silent_server_is_replaced_by_one_of_the_runs_own(flow, tmp_path):
    calls, urls = flow
    calls += [unreachable, lambda: None]
    assert child._run(REQUEST, tmp_path) == (0, None, False)
    assert urls == ["http://127.0.0.1:9/api", None]


def test_a_run_that_has_done_everything_is_done_whatever_the_server_heard(flow, tmp_path):
    calls, urls = flow
    calls += [unreachable]
    write_atomically(tmp_path / "run.json", {"stages": [{"status": "hit"}, {"status": "executed"}]})
    assert child._run(REQUEST, tmp_path) == (0, None, False)
    assert len(urls) == 1


def test_the_stages_own_error_is_told_even_if_the_server_was_not_told(flow, tmp_path):
    def gate():
        try:
            raise VitopsError("a gate failed")
        except VitopsError:
            unreachable()

    flow[0].append(gate)
    assert child._run(REQUEST, tmp_path) == (1, "a gate failed", False)


def test_without_any_server_the_run_can_be_resumed(flow, tmp_path):
    flow[0].extend([unreachable, unreachable])
    code, error, answered = child._run(REQUEST, tmp_path)
    assert (code, answered) == (75, False)
    assert "run the same command again when the server is back" in error


def test_a_defect_is_no_silence(flow, tmp_path):
    flow[0].append(lambda: 1 / 0)
    assert child._run(REQUEST, tmp_path) == (1, "ZeroDivisionError: division by zero", True)
    assert len(flow[1]) == 1


def test_a_server_of_the_run_that_dies_is_started_again(monkeypatch):
    def start(_self):
        return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    monkeypatch.setattr(SubprocessASGIServer, "_run_uvicorn_command", start)
    monkeypatch.setattr(server, "SECONDS_BETWEEN_LOOKS", 0.05)
    own = SubprocessASGIServer(port=59999)
    own.server_process, own.running = start(own), True
    first = own.server_process
    with server.kept_alive():
        os.kill(first.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while own.server_process is first and time.monotonic() < deadline:
            time.sleep(0.02)
    assert own.server_process.pid != first.pid and own.server_process.poll() is None
    own.stop()
