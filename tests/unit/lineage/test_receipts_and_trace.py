"""Receipts as in-toto statements, and the tree behind an artifact."""

import json

import pytest

from vitops.errors import UsageError
from vitops.lineage.ledger import Ledger
from vitops.lineage.receipts import receipt
from vitops.lineage.trace import trace
from vitops.store.job import Outcome, Position


def test_a_receipt_is_an_in_toto_statement_about_every_file(lineage):
    found = lineage.ledger.by_digest(lineage.digests["student"])
    statement = found.statement
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://vitops.dev/receipt/v1"
    entries = lineage.store.manifest(found.digest)
    assert statement["subject"] == [{"name": e.path, "digest": {"sha256": e.sha256}} for e in entries]
    assert set(statement["predicate"]) == {
        "artifact", "stage", "kind", "pipeline", "key", "inputs", "parameters", "code", "environment", "seeds",
        "configuration", "outcome", "when", "who", "host", "adopted",
    }  # fmt: skip


def test_a_receipt_answers_what_was_recorded(small):
    outcome = Outcome(resumed_from=Position(epoch=2, step=5), facts={"loss": 0.5})
    view = receipt(3, json.loads(json.dumps(small(outcome=outcome, adopted=True, inputs={"data": "1" * 64}))))
    assert (view.stage, view.kind, view.pipeline, view.key) == ("split", "split", "quickstart", "a" * 64)
    assert (view.seconds, view.adopted, view.inputs) == (1.5, True, {"data": "1" * 64})
    assert view.predicate.outcome == outcome
    assert view.predicate.seeds == [7]
    assert view.code.definitions == {"module:function": "d" * 64}
    assert view.predicate.when.started == "1970-01-01T00:00:00+00:00"
    assert view.ref.digest == view.digest == "e" * 64
    assert view.files == {"f": "f" * 64}


def test_no_environment_variable_enters_a_receipt(small, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")
    assert "hunter2" not in json.dumps(small())


def test_the_tree_goes_back_to_the_source_of_the_data(lineage):
    tree = trace(lineage.ledger, lineage.digests["package"])
    walked = [(depth, role, node.receipt and node.receipt.stage, seen) for depth, role, node, seen in tree.walk()]
    assert walked == [
        (0, "", "package", False),
        (1, "data", "ingest", False),
        (2, "source", None, False),
        (1, "student", "student", False),
        (2, "data", "ingest", True),
        (2, "teacher", "teacher", False),
        (3, "data", "ingest", True),
    ]
    assert tree.sources() == ["5" * 64]
    document = tree.to_json()
    assert [node["stage"] for node in document] == ["package", "ingest", None, "student", "teacher"]
    assert document[3]["inputs"] == {"data": "1" * 64, "teacher": lineage.digests["teacher"]}


def test_a_prefix_names_an_artifact_and_an_unknown_one_gets_the_nearest(lineage):
    digest = lineage.digests["package"]
    assert trace(lineage.ledger, digest[:8]).digest == digest
    wrong = digest[:9] + ("0" if digest[9] != "0" else "1")
    with pytest.raises(UsageError, match=f"Did you mean {digest[:9]}"):
        trace(lineage.ledger, wrong)


def test_stages_that_return_their_input_do_not_make_a_cycle(tmp_path, small):
    ledger = Ledger(tmp_path / "home")
    x, y = "1" * 64, "2" * 64
    ledger.append(small(key="a" * 64, digest=x, inputs={"in": y}))
    ledger.append(small(key="b" * 64, digest=y, inputs={"in": x}))
    ledger.append(small(key="c" * 64, digest=x, inputs={"in": y, "self": x}))
    assert trace(ledger, x).inputs["self"].receipt.sequence == 0
    assert trace(ledger, x).inputs["in"].inputs["in"].inputs["in"].receipt is None


def test_a_ladder_of_shared_inputs_is_walked_in_linear_time(tmp_path, small):
    ledger = Ledger(tmp_path / "home")
    ledger.append(small(key="0" * 64, digest=f"{0:064x}"))
    for number in range(1, 40):
        before = f"{number - 1:064x}"
        ledger.append(small(key=f"{number:064x}", digest=f"{number:064x}", inputs={"a": before, "b": before}))
    assert len(list(trace(ledger, f"{39:064x}").walk())) == 40 + 39
