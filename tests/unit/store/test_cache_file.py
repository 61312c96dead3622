"""A cache file: what a killed or a concurrent writer leaves to the next one."""

import os
import signal
import subprocess
import sys

from vitops.store import cache_file, durable

KILLED = """
import os, signal, sys
from pathlib import Path
from vitops.store import cache_file, durable
durable._rename = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
cache_file.save(Path(sys.argv[1]), {"from": "the killed one"})
"""


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "cache/index.json"
    cache_file.save(path, {"from": "the first"})
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert any(name.endswith(".tmp") for name in names(path.parent))
    assert cache_file.load(path) == {"from": "the first"}
    assert cache_file.save(path, {"from": "the next"})
    assert names(path.parent) == {"index.json", ".index.json.lock"}
    assert cache_file.load(path) == {"from": "the next"}


def test_a_save_within_a_save_gives_up_instead_of_waiting_for_itself(tmp_path, monkeypatch):
    path, inner, real = tmp_path / "index.json", [], durable._write

    def finalizer_runs_now(descriptor, data):
        if not inner:
            inner.append(None)
            inner[0] = cache_file.save(path, {"from": "the inner"})
        real(descriptor, data)

    monkeypatch.setattr(cache_file, "_PATIENCE", 0.05)
    monkeypatch.setattr(durable, "_write", finalizer_runs_now)
    assert cache_file.save(path, {"from": "the outer"})
    assert inner == [False]
    assert cache_file.load(path) == {"from": "the outer"}
