"""From digits to an audited int8 package, as a user drives it."""

import json
import re

import numpy as np
from PIL import Image
from project import TINY, Project, digests, statuses

from vitops.store.canonical import sha256_file

DATA = ("ingest", "validate", "split")
STAGES = [*DATA, "teacher", "student", "prune", "export", "quantize", "evaluate", "package", "report"]


def test_a_fresh_project_plans_to_run_the_first_stage_and_to_wait_with_the_rest(road):
    assert list(road.planned) == STAGES
    assert road.planned["ingest"]["status"] == "run"
    assert {road.planned[name]["status"] for name in STAGES[1:]} == {"waits"}
    assert all(road.planned[name]["key"] is None for name in STAGES[1:])


def test_every_stage_is_executed_once_and_never_again(road):
    assert statuses(road.first) == dict.fromkeys(STAGES[:4], "executed")
    assert statuses(road.document) == dict.fromkeys(STAGES[:4], "hit") | dict.fromkeys(STAGES[4:], "executed")
    assert {stage["status"] for stage in road.project.plan().values()} == {"hit"}
    again = road.project.run()
    assert statuses(again) == dict.fromkeys(STAGES, "hit")
    assert digests(again) == digests(road.document)
    assert again["package"] == road.document["package"]


def test_two_workers_on_ray_in_another_folder_give_the_same_bytes(road, tmp_path):
    other = Project(tmp_path)
    options = ("--workers", "2", "--set", "resources.launcher=ray", "--until", "package")
    assert digests(other.run(*options)) == digests(road.document)


def test_the_lineage_of_the_package_ends_at_the_source_of_the_data(road):
    digest = road.document["package"]["digest"]
    done = road.project.vitops("lineage", digest[:12], "--json")
    tree = json.loads(done.stdout)
    assert tree["sources"] == [sha256_file(road.project.folder / "data/raw/digits.npz")]
    made = {entry["stage"] for entry in tree["receipts"]}
    assert set(STAGES) - {"report"} <= made


def test_the_package_shows_its_files_and_predicts(road, tmp_path):
    package = road.document["package"]
    shown = json.loads(road.project.vitops("show", package["digest"], "--json").stdout)
    names = {file["path"] for file in shown["files"]}
    assert {
        "model.safetensors",
        "model.onnx",
        "model.int8.onnx",
        "preprocessing.json",
        "card.md",
        "receipt.json",
    } <= names
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "blank.png")
    done = road.project.vitops("predict", package["path"], str(tmp_path / "blank.png"), "--json")
    assert len(json.loads(done.stdout)["predictions"][0]["top"]) == 5


def test_the_report_is_one_offline_page(road):
    page = (road.project.folder / road.document["report"]).read_text()
    assert "<svg" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_an_altered_blob_is_named_and_the_next_run_repairs_it(road, tmp_path):
    copy = road.project.copy(tmp_path)
    teacher = road.document["stages"][3]["digest"]
    weights = json.loads(copy.vitops("show", teacher, "--json").stdout)["files"][-1]
    blob = copy.folder / ".vitops/objects/blobs" / weights["sha256"][:2] / weights["sha256"]
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    found = copy.vitops("verify")
    assert found.returncode == 3
    assert str(blob) in found.stdout
    assert copy.plan()["teacher"]["status"] == "run"
    repaired = copy.run()
    assert statuses(repaired) == dict.fromkeys(STAGES, "hit") | {"teacher": "executed"}
    assert copy.vitops("verify").returncode == 0


def test_editing_the_students_loss_runs_the_student_alone_and_a_comment_nothing(road, tmp_path):
    copy = road.project.copy(tmp_path)
    loss = copy.folder / "vitops/losses/deit_lt.py"
    text = loss.read_text()
    loss.write_text("# A remark.\n" + text)
    assert {stage["status"] for stage in copy.plan().values()} == {"hit"}
    loss.write_text(text.replace("(1 - alpha)", "(1.0 - alpha)"))
    assert loss.read_text() != text
    planned = {name: stage["status"] for name, stage in copy.plan().items()}
    expected = dict.fromkeys([*DATA, "teacher"], "hit") | {"student": "run"} | dict.fromkeys(STAGES[5:], "waits")
    assert planned == expected
    explained = json.loads(copy.vitops("explain", "tiny", "student", "--file", str(TINY), "--json").stdout)
    (change,) = explained["stages"][0]["changes"]
    assert change["what"] == "definition"
    assert change["name"].startswith("vitops.losses.deit_lt")


def test_a_changed_parameter_of_the_end_leaves_the_beginning_alone(road, tmp_path):
    copy = road.project.copy(tmp_path)
    planned = copy.plan("--set", "quantize.images=40")
    assert {name for name, stage in planned.items() if stage["status"] != "hit"} == {
        "quantize",
        "evaluate",
        "package",
        "report",
    }
    document = copy.run("--set", "quantize.images=40", "--until", "quantize")
    assert [stage["name"] for stage in document["stages"]] == STAGES[:8]
    assert statuses(document)["quantize"] == "executed"


def test_the_compress_flow_takes_models_by_digest(road, tmp_path):
    copy = road.project.copy(tmp_path)
    made = digests(road.document)
    options = ("--set", f"student={made['student']}", "--set", f"teacher={made['teacher']}")
    done = copy.vitops("run", "small", "--file", str(TINY), "--json", *options)
    assert done.returncode == 0, f"{done.stderr}\n{copy.log()}"
    document = json.loads(done.stdout)
    assert statuses(document) == dict.fromkeys(DATA, "hit") | dict.fromkeys(STAGES[5:], "executed")
    lineage = json.loads(copy.vitops("lineage", "small/package", "--json").stdout)
    assert {"teacher", "student", "prune"} <= {entry["stage"] for entry in lineage["receipts"]}
