"""Prefect's own server, where a run has no other: a child process of the flow.

Law: while the block runs, a server that died is started again at the same port and with the same database; the client's
retries bridge the seconds in between, so that the run goes on.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.server.api.server import SubprocessASGIServer

SECONDS_BETWEEN_LOOKS = 1.0
NO_ANSWER = (httpx.TransportError,)
"""What Prefect's client raises where no server answers."""


@contextmanager
def kept_alive() -> Iterator[None]:
    """Look after the servers that this process started, in a thread, for the block."""
    done = threading.Event()
    keeper = threading.Thread(target=_keep, args=(done,), name="prefect-server", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


def _keep(done: threading.Event) -> None:
    while not done.wait(SECONDS_BETWEEN_LOOKS):
        for server in list(SubprocessASGIServer._instances.values()):
            died = server.running and server.server_process is not None and server.server_process.poll() is not None
            if died:
                server.server_process = server._run_uvicorn_command()
