"""A server that ignores the condition of a create-only request is refused before a run writes anything."""

from pathlib import Path

import pytest
from s3_faults import FAULTS

from vitops.errors import VitopsError
from vitops.plan.opening import open_project
from vitops.plan.request import RunRequest
from vitops.store.shared import SharedStore

ROOT = Path(__file__).parents[3]


def test_no_run_begins_on_a_server_that_overwrites_what_is_there(s3, tmp_path, monkeypatch):
    """What was there is gone before each request, as if the server did not mind the condition."""

    def overwritten(forward):
        for name in s3.names():
            s3.delete(name)
        return forward()

    monkeypatch.setenv("VITOPS_STORE", s3.url)
    opened = open_project(RunRequest(pipeline="quickstart", root=ROOT, home=tmp_path))
    s3.proxy.strike("PUT", "", overwritten)
    for _ in range(2):
        with pytest.raises(VitopsError, match=rf"{s3.url}: the server ignores `If-None-Match: \*`.*Use a server that"):
            opened.place()
    assert s3.names() == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_keeps_it_is_asked_once_whatever_happens_to_a_request(fault, s3, tmp_path):
    s3.proxy.strike("PUT", "/probes/", FAULTS[fault], times=1)
    SharedStore(tmp_path, s3.objects(), cache_limit=0).check_server()
    assert s3.proxy.count("PUT", "/probes/") >= 2
    assert s3.names() == []
    s3.proxy.forget()
    SharedStore(tmp_path, s3.objects(), cache_limit=0).check_server()
    assert s3.proxy.asked == []
