"""Prefect's server may die while a run is under way; the run does not die with it.

Laws: a server that the run started for itself is started again at the same port and with the same database; the
client's retries bridge the seconds in between. A server of somebody else that stops answering is replaced by one of the
run's own, where the flow is begun again: finished stages are hits there.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, temporary_settings

SECONDS_BETWEEN_LOOKS = 1.0


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


@contextmanager
def of_its_own() -> Iterator[None]:
    """Forget about a configured server: flows of the block use one that Prefect starts for this process."""
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


def silent(error: BaseException) -> bool:
    """Whether an error came of a server that does not answer."""
    return any(isinstance(cause, httpx.TransportError) for cause in chain(error))


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from or while handling."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _keep(done: threading.Event) -> None:
    while not done.wait(SECONDS_BETWEEN_LOOKS):
        for server in list(SubprocessASGIServer._instances.values()):
            died = server.running and server.server_process is not None and server.server_process.poll() is not None
            if died:
                server.server_process = server._run_uvicorn_command()
