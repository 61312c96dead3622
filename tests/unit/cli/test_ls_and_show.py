import json
from pathlib import Path

import pytest

from vitops.store import manifest


def test_ls_lists_what_is_declared(project, vitops) -> None:
    result = vitops("ls", "--json")
    document = json.loads(result.out)
    assert set(document) == {"datasets", "pipelines", "artifacts"}
    assert document["datasets"][0] == {
        "name": "digits", "task": "classification", "source": "data/raw/digits.npz", "splits": ["balanced", "longtail"],
    }  # fmt: skip
    assert document["pipelines"][0] == {
        "name": "quickstart", "flow": "retrain", "dataset": "digits", "split": "longtail", "profiles": ["quick"],
    }  # fmt: skip
    assert document["artifacts"] == [] and result.err == ""


def test_ls_creates_nothing(project, vitops) -> None:
    before = sorted(project.iterdir())
    vitops("ls")
    assert sorted(project.iterdir()) == before


def test_ls_lists_each_artifact_once_newest_last(project, make, vitops) -> None:
    teacher = make("teacher", "one")
    student = make("student", "two", inputs={"teacher": teacher.digest})
    make("teacher", "one")
    artifacts = json.loads(vitops("ls", "--json").out)["artifacts"]
    assert [(item["stage"], item["digest"]) for item in artifacts] == [
        ("student", student.digest),
        ("teacher", teacher.digest),
    ]
    assert set(artifacts[0]) == {"digest", "kind", "pipeline", "stage", "made", "files"}


def test_ls_shows_names_and_short_digests(project, make, vitops) -> None:
    ref = make("teacher", "one")
    out = vitops("ls").out
    assert "quickstart" in out and ref.digest[:12] in out and ref.digest not in out
    assert all(len(line) < 200 for line in out.splitlines())


def test_show_gives_files_receipt_and_a_folder(project, make, vitops) -> None:
    ref = make("teacher", "one")
    document = json.loads(vitops("show", ref.digest[:8], "--json").out)
    assert set(document) == {"kind", "digest", "path", "files", "receipt"}
    assert (document["kind"], document["digest"]) == ("model", ref.digest)
    assert (Path(document["path"]) / "a.txt").read_text() == "one"
    (file,) = document["files"]
    assert file["path"] == "a.txt" and len(file["sha256"]) == 64
    assert document["receipt"]["statement"]["predicate"]["stage"] == "teacher"
    assert document["receipt"]["sequence"] == 0


def test_show_takes_a_pipeline_and_stage(project, make, vitops) -> None:
    make("teacher", "one")
    newer = make("teacher", "two")
    assert json.loads(vitops("show", "quickstart/teacher", "--json").out)["digest"] == newer.digest
    result = vitops("show", "quickstart/teachr")
    assert result.code == 2 and "did you mean 'quickstart/teacher'?" in result.err


def test_show_of_an_altered_artifact_names_the_file_and_exits_3(project, make, vitops) -> None:
    ref = make("teacher", "one")
    blob = next(path for path in (project / ".vitops/objects/blobs").rglob("*") if path.is_file())
    blob.chmod(0o644)
    blob.write_text("oen")
    result = vitops("show", ref.digest)
    assert (result.code, result.out) == (3, "")
    assert "a.txt" in result.err and "Traceback" not in result.err


def test_show_of_a_data_folder_checks_it_in_place(project, vitops, make) -> None:
    from vitops.lineage.ledger import Ledger
    from vitops.lineage.receipts import statement
    from vitops.store.job import Outcome
    from vitops.store.refs import Ref

    folder = project / "data/digits/splits/longtail"
    folder.mkdir(parents=True)
    (folder / "split.json").write_text("{}")
    digest = manifest.write(folder)
    receipt = statement(
        kind="split", stage="split", pipeline="quickstart", key=None, subject=Ref(kind="split", digest=digest),
        files=manifest.read(folder), inputs={}, parameters={}, code=None, environment={}, outcome=Outcome(),
        started=0.0, seconds=0.0, who="me", host="here", seed=None, adopted=True,
    )  # fmt: skip
    Ledger(project / ".vitops").append(receipt)
    assert json.loads(vitops("show", digest[:9], "--json").out)["path"] == str(folder)
    (folder / "split.json").write_text("[]")
    assert vitops("show", digest).code == 3
    (folder / "manifest.json").unlink()
    assert json.loads(vitops("show", digest, "--json").out)["path"] is None


@pytest.mark.parametrize("name", ["\x1b[31mred.txt", "a\u202eb.txt"])
def test_names_of_files_cannot_drive_the_terminal(project, make, vitops, name: str) -> None:
    ref = make("teacher", "one", name=name)
    for arguments in (["show", ref.digest], ["show", ref.digest, "--json"], ["ls"]):
        out = vitops(*arguments).out
        assert "\x1b" not in out and "\u202e" not in out
