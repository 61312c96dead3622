"""How a run ends when its flow process could not say how it ended."""

import errno
import json

import pytest

from flows import __main__ as child
from vitops.cli.supervise import _result
from vitops.errors import VitopsError
from vitops.plan.record import read_record
from vitops.plan.request import RunRequest
from vitops.store import durable


@pytest.fixture
def full_disk(monkeypatch):
    def refuse(_descriptor, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "_write", refuse)


def test_an_outcome_is_what_the_flow_said(tmp_path) -> None:
    (tmp_path / "outcome.json").write_text(json.dumps({"exit_code": 2, "error": "wrong"}))
    assert _result(tmp_path, 2, stopped=False) == (2, "wrong")


def test_a_flow_that_died_is_told_with_its_log_and_kept_on_record(tmp_path) -> None:
    code, error = _result(tmp_path, -9, stopped=False)
    assert code == 1 and "signal 9" in error and str(tmp_path / "log.txt") in error
    assert read_record(tmp_path / "outcome.json") == {"exit_code": 1, "error": error, "died": True}


def test_a_full_disk_that_took_no_outcome_is_named(tmp_path, full_disk) -> None:
    with pytest.raises(VitopsError, match=r"outcome\.json: no space is left on its file system"):
        _result(tmp_path, 1, stopped=False)
    assert list(tmp_path.iterdir()) == []


def test_the_flow_process_ends_without_traceback_on_a_full_disk(tmp_path, full_disk, monkeypatch, capsys) -> None:
    (tmp_path / "request.json").write_text(RunRequest(pipeline="p").model_dump_json())
    monkeypatch.setattr(child, "die_with_parent", lambda _: None)
    monkeypatch.setattr(child, "_run", lambda *_: (0, None, True))
    assert child.main(tmp_path, 1) == 1
    assert "no space is left" in capsys.readouterr().err
