"""Which flow runs of a Prefect server are ours and dead."""

import subprocess
import sys

from flows.orphans import _gone
from vitops.plan.record import write_atomically
from vitops.plan.request import RunRequest
from vitops.plan.runs import SUPERVISOR, begin
from vitops.store.process import Process


def asked(home, name):
    return {"pipeline": "tiny", "home": str(home), "run_id": name}


def test_only_a_run_of_this_store_whose_supervisor_is_gone_is_an_orphan(tmp_path):
    runs = tmp_path / "runs"
    for name in ("alive", "dead"):
        (runs / name).mkdir(parents=True)
        begin(runs / name, RunRequest(pipeline="tiny"))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead = Process.of(child.pid)
    child.communicate(b"\n")
    write_atomically(runs / "dead" / SUPERVISOR, dead.model_dump())
    assert _gone(runs, asked(tmp_path, "dead"))
    assert not _gone(runs, asked(tmp_path, "alive"))
    assert not _gone(runs, asked(tmp_path, "unknown"))
    assert not _gone(runs / "other", asked(tmp_path, "dead"))
    assert not _gone(runs, None) and not _gone(runs, {"pipeline": "tiny"})
