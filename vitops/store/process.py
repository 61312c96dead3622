"""Which process something belongs to, as a value that survives it.

Laws: a process counts as the recorded one only if its creation time agrees, so a reused pid is never hit; of a process
on another machine nothing is known, so it counts as alive.
"""

import socket

import psutil
from pydantic import BaseModel, ConfigDict

_TICK = 0.05
"""Seconds within which two creation times are the same."""


class Process(BaseModel):
    """One process: machine, pid, and creation time in seconds since the epoch."""

    model_config = ConfigDict(frozen=True)
    host: str
    pid: int
    created: float

    @staticmethod
    def own() -> "Process":
        """This process."""
        me = psutil.Process()
        return Process(host=socket.gethostname(), pid=me.pid, created=me.create_time())

    def gone(self) -> bool:
        """Whether it ended here, on this machine."""
        if self.host != socket.gethostname():
            return False
        process = find((self.pid, self.created))
        return process is None or not alive(process)


def find(identity: tuple[int, float]) -> psutil.Process | None:
    """The process of that pid and creation time, if there still is one."""
    pid, created = identity
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - created) < _TICK else None
    except psutil.NoSuchProcess:
        return None


def alive(process: psutil.Process) -> bool:
    """Whether it runs and is no zombie."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
