"""Two homes measure the same stage although only one should: one receipt stands, and both go on with its result."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vitops.lineage.shared_ledger import SharedLedger
from vitops.plan.code.digest import code_digest
from vitops.plan.execute import Place, execute
from vitops.plan.record import RunRecord
from vitops.plan.stages import Stage
from vitops.reporting import stage as reporting
from vitops.store.job import Outcome
from vitops.store.s3 import S3Objects
from vitops.store.shared import SharedStore

REPORT = Stage(
    name="report",
    kind="report",
    parameters={},
    roots=("vitops.reporting.stage:report",),
    libraries=(),
    environment={},
    exactness="measured",
)


class Late(S3Objects):
    """Something happens between the decision to write a receipt, which still is this home's right, and the request."""

    meanwhile = None

    def create(self, name, data):
        if name.startswith("ledger/") and self.meanwhile:
            self.meanwhile()
        return super().create(name, data)


def place(home, objects):
    store = SharedStore(home, objects, cache_limit=1 << 30)
    return Place(
        root=home,
        store=store,
        ledger=SharedLedger(home, objects),
        record=RunRecord(home / "runs/one", pipeline="p", stages=[REPORT], configuration={}),
        code={REPORT.name: code_digest(REPORT.roots)},
    )


@pytest.mark.parametrize("first", ["the run that was given up", "the run that took over"])
def test_the_first_receipt_decides(first, s3, tmp_path, monkeypatch):
    measuring, go_on = threading.Event(), threading.Event()

    def measure(job):
        (job.out / "milliseconds").write_bytes(os.urandom(8))
        if job.out.is_relative_to(tmp_path / "two"):
            measuring.set()
            assert go_on.wait(60)
        return Outcome()

    def take_over():
        (claim,) = (name for name in s3.names() if name.startswith("claims/"))
        s3.put(f"{claim}.done", b"")
        other.append(pool.submit(execute, two, REPORT, {}))
        assert measuring.wait(60)
        if first == "the run that took over":
            go_on.set()
            other[0].result()

    monkeypatch.setattr(reporting, "report", measure)
    late, other = s3.objects(kind=Late), []
    one, two = place(tmp_path / "one", late), place(tmp_path / "two", s3.objects())
    late.meanwhile = lambda: other or take_over()
    with ThreadPoolExecutor(1) as pool:
        done = [execute(one, REPORT, {})]
        go_on.set()
        done.append(other[0].result())
    assert [each.hit for each in done] == [first == "the run that took over", first == "the run that was given up"]
    (receipt,) = two.ledger.entries()
    assert {each.ref.digest for each in done} == {receipt.digest}
    assert two.store.digests() == [receipt.digest]
    assert {each.record.stages["report"]["digest"] for each in (one, two)} == {receipt.digest}
