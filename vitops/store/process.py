"""Which process something belongs to, as a value that survives it.

Laws: a process counts as the recorded one only if it was started in the same tick after the same start of the machine,
so a reused pid is never hit, and no step of the clock makes another process of it.
"""

from pathlib import Path

import psutil

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_START = 22 - 3
"""Place of the start in ``/proc/PID/stat`` (proc(5)), counted behind the name, which may hold spaces."""


def boot_id() -> str:
    """Another text after every start of the machine (Linux)."""
    return _BOOT.read_text().strip()


def start_of(pid: int) -> str | None:
    """When the process of that pid was started: the machine's start, and ticks since then; None if there is none."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{boot_id()}:{said.rpartition(')')[2].split()[_START]}"


def find(identity: tuple[int, str]) -> psutil.Process | None:
    """The process of that pid and start, if there still is one."""
    pid, started = identity
    try:
        return psutil.Process(pid) if start_of(pid) == started else None
    except psutil.NoSuchProcess:
        return None


def alive(process: psutil.Process) -> bool:
    """Whether it runs and is no zombie."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
