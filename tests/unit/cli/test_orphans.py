"""Which flow runs of a Prefect server are ours and dead."""

from flows.orphans import _gone
from vitops.plan.request import RunRequest
from vitops.plan.runs import begun


def asked(home, name):
    return {"pipeline": "tiny", "home": str(home), "run_id": name}


def test_only_a_run_of_this_store_whose_supervisor_is_gone_is_an_orphan(tmp_path):
    runs = tmp_path / "runs"
    for name in ("alive", "dead"):
        (runs / name).mkdir(parents=True)
    with begun(runs / "dead", RunRequest(pipeline="tiny")):
        assert not _gone(runs, asked(tmp_path, "dead"))
    with begun(runs / "alive", RunRequest(pipeline="tiny")):
        assert _gone(runs, asked(tmp_path, "dead"))
        assert not _gone(runs, asked(tmp_path, "alive"))
        assert not _gone(runs, asked(tmp_path, "unknown"))
        assert not _gone(runs / "other", asked(tmp_path, "dead"))
        assert not _gone(runs, None) and not _gone(runs, {"pipeline": "tiny"})
