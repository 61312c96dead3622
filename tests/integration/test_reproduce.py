"""``vitops reproduce`` on the real road: everything again from what is on record, or the name of what is another."""

import json
import re

import pytest

from vitops.lineage.ledger import Ledger

DATA = ("ingest", "validate", "split")


@pytest.fixture
def project(road, tmp_path):
    return road.project.copy(tmp_path)


def reproduce(project, name, *, code):
    done = project.vitops("reproduce", name, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_a_package_is_made_again_byte_by_byte_after_pipelines_yaml_was_edited(road, project):
    edited = project.folder / "pipelines.yaml"
    edited.write_text(edited.read_text().replace("imbalance_factor: 5", "imbalance_factor: 7"))
    ledger = Ledger(project.folder / ".vitops")
    before = ledger.sequences()
    document = reproduce(project, road.document["package"]["path"], code=0)
    assert document["reproduced"] and document["changes"] == {}
    made = {stage["name"]: stage["digest"] for stage in road.document["stages"] if stage["name"] != "report"}
    assert {stage["name"]: stage["found"] for stage in document["stages"]} == made
    assert {stage["status"] for stage in document["stages"]} == {"equal"}
    assert ledger.sequences() == before
    assert list((project.folder / ".vitops/tmp").glob("*/*/.vitops")) == []


def test_a_run_takes_its_measured_stages_as_given_and_names_an_edited_definition(road, project):
    loss = project.folder / "vitops/losses/deit_lt.py"
    loss.write_text(loss.read_text().replace("(1 - alpha)", "(1.0 - alpha)"))
    ledger = Ledger(project.folder / ".vitops")
    report = [receipt for receipt in ledger.entries() if receipt.stage == "report"][-1]
    ledger.append(json.loads(json.dumps(report.statement).replace(report.digest, "ab" * 32)))  # measured once more
    run = max(folder.name for folder in (project.folder / ".vitops/runs").iterdir())
    document = reproduce(project, run, code=3)
    assert [change["name"] for change in document["changes"]["student"]] == ["vitops.losses.deit_lt.deit_lt_loss"]
    assert {stage["status"] for stage in document["stages"]} == {"not run"}
    assert document["stages"][-1]["exactness"] == "measured"


def test_another_source_is_named_and_nothing_is_executed(project):
    with (project.folder / "data/raw/digits.npz").open("ab") as source:
        source.write(b"x")
    document = reproduce(project, "tiny/split", code=3)
    (change,) = document["changes"]["ingest"]
    assert (change["what"], change["name"]) == ("input", "source")
    assert [stage["status"] for stage in document["stages"]] == ["not run"] * 3


def test_a_receipt_about_bytes_that_do_not_come_out_is_told_with_the_file(project):
    ledger = Ledger(project.folder / ".vitops")
    last = [receipt for receipt in ledger.entries() if receipt.stage == "validate"][-1]
    text = json.dumps(last.statement).replace(last.digest, "ab" * 32)
    forged = re.sub(r'("name": "result\.json", "digest": {"sha256": ")[0-9a-f]{64}', r"\g<1>" + "cd" * 32, text)
    ledger.append(json.loads(forged))
    document = reproduce(project, "tiny/validate", code=3)
    rows = {stage["name"]: stage for stage in document["stages"]}
    assert (rows["ingest"]["status"], rows["validate"]["status"]) == ("equal", "differs")
    assert rows["validate"]["recorded"] == "ab" * 32 != rows["validate"]["found"] == last.digest


def test_a_record_of_a_run_without_a_receipt_is_no_evidence(project):
    run = max(project.folder.glob(".vitops/runs/*/run.json"))
    record = json.loads(run.read_text())
    record["stages"][3]["digest"] = "ab" * 32
    run.write_text(json.dumps(record))
    done = project.vitops("reproduce", run.parent.name)
    assert done.returncode == 3
    assert "stage teacher" in done.stderr and "receipts are the evidence" in done.stderr


def test_a_run_whose_stages_would_be_others_now_is_not_gone_on_with(project):
    folder = project.folder / ".vitops/runs/begun"
    ran = max(project.folder.glob(".vitops/runs/*/run.json")).parent
    folder.mkdir()
    (folder / "request.json").write_bytes((ran / "request.json").read_bytes())
    stages = [{"name": "ingest", "status": "hit"}, {"name": "student", "status": "running", "key": "ab" * 32}]
    (folder / "run.json").write_text(json.dumps({"stages": stages}))
    done = project.vitops("resume", "begun")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run begun cannot go on: student would not be what was begun" in done.stderr
    assert "vitops explain tiny student" in done.stderr
    assert sorted(file.name for file in folder.iterdir()) == ["request.json", "run.json"]


def test_what_is_not_on_record_is_a_usage_error(project):
    done = project.vitops("reproduce", "tiny/studnt")
    assert (done.returncode, done.stderr) == (2, "nothing was made by 'tiny/studnt'; did you mean 'tiny/student'?\n")
