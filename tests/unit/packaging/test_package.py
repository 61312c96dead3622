import hashlib
import itertools
import json
import re

import pytest

from vitops.errors import UsageError, VerificationError, VitopsError
from vitops.packaging.folder import FILES, open_package
from vitops.packaging.text import markdown, printable


def test_a_package_has_exactly_the_documented_files(make_package):
    names = {file.name for file in make_package().path.iterdir()}
    assert names == {*FILES, "receipt.json"}


def test_the_receipt_subjects_are_all_other_files_with_their_hashes(make_package):
    package = make_package().path
    statement = json.loads((package / "receipt.json").read_bytes())
    subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    others = {file.name for file in package.iterdir()} - {"receipt.json"}
    assert subjects == {name: hashlib.sha256((package / name).read_bytes()).hexdigest() for name in others}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"


def test_the_receipt_names_every_input_and_the_stage_key(make_package):
    made = make_package()
    definition = json.loads((made.path / "receipt.json").read_bytes())["predicate"]["buildDefinition"]
    found = {entry["name"]: entry["digest"]["sha256"] for entry in definition["resolvedDependencies"]}
    assert found == made.job.digests
    assert definition["internalParameters"]["key"] == made.job.key


def test_packaging_twice_gives_the_same_bytes(make_package):
    first, second = make_package("first").path, make_package("second").path
    assert {f.name: f.read_bytes() for f in first.iterdir()} == {f.name: f.read_bytes() for f in second.iterdir()}


def test_preprocessing_has_the_documented_keys_and_resize_only_when_set(make_package, inputs):
    document = json.loads((make_package().path / "preprocessing.json").read_bytes())
    assert set(document) == {"size", "mean", "std", "interpolation", "channels"}
    spec = json.loads((inputs["prune"] / "model.json").read_bytes())
    spec["preprocessing"]["resize"] = 12
    (inputs["prune"] / "model.json").write_text(json.dumps(spec))
    assert json.loads((make_package("resized").path / "preprocessing.json").read_bytes())["resize"] == 12


def test_every_table_row_of_figures_names_an_artifact_of_the_table(make_package):
    made = make_package()
    card = (made.path / "card.md").read_text()
    full = set(re.findall(r"`([0-9a-f]{64})`", card))
    assert set(made.job.digests.values()) <= full
    named = re.findall(r"`([a-z]+)@([0-9a-f]{12})`", card)
    assert named and all(any(digest.startswith(short) for digest in full) for _, short in named)
    sections = card.split("\n## ")
    for section in sections[1:]:
        title = section.splitlines()[0]
        if re.search(r"\d", section) and title not in {"Artifacts", "How to run"}:
            assert re.search(r"`[a-z]+@[0-9a-f]{12}`", section), title


def test_the_card_sends_readers_to_the_report_for_latency(make_package):
    card = (make_package(pipeline="quickstart").path / "card.md").read_text()
    assert "pipeline `quickstart`, stage `report`" in card
    assert not re.search(r"\d\s*ms\b", card)


def test_an_empty_group_is_a_dash_in_the_card_and_never_zero(make_package):
    card = (make_package().path / "card.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith("| `model.int8.onnx` | `quantize@"))
    assert row.split("|")[-2].strip() == "–"


def test_the_tables_of_the_card_are_whole(make_package):
    lines = (make_package().path / "card.md").read_text().splitlines()
    rules = [number for number, row in enumerate(lines) if row.startswith("|---")]
    sizes = []
    for rule in rules:
        width = lines[rule].count("|")
        rows = list(itertools.takewhile(lambda row: row.startswith("|"), lines[rule + 1 :]))
        assert all(row.replace("\\|", "").count("|") == width for row in [lines[rule - 1], *rows])
        sizes.append(len(rows))
    assert sizes == [5, 5, 5, 7, 7]  # accuracy, size, files, classes, artifacts


def test_class_names_cannot_break_the_card(make_package):
    card = (make_package().path / "card.md").read_text()
    assert "o\\|ne" in card
    assert "\x1b" not in card and "\\\\x1b" in card


def test_an_onnx_file_with_a_fixed_batch_is_refused(make_package, inputs, linear):
    linear(inputs["quantize"] / "model.int8.onnx", batch=1)
    with pytest.raises(VitopsError, match="dynamic batch"):
        make_package()


def test_an_onnx_file_for_other_classes_is_refused(make_package, inputs, linear):
    linear(inputs["export"] / "model.onnx", classes=3)
    with pytest.raises(VitopsError, match="logits"):
        make_package()


def test_an_altered_file_is_named(make_package):
    package = make_package().path
    (package / "model.json").write_bytes((package / "model.json").read_bytes() + b" ")
    with pytest.raises(VerificationError, match=r"model\.json was altered"):
        open_package(package).read("model.json")


def test_a_missing_file_is_named(make_package):
    package = make_package().path
    (package / "model.onnx").unlink()
    with pytest.raises(VerificationError, match=r"model\.onnx is missing"):
        open_package(package).read("model.onnx")


def test_a_folder_without_receipt_is_no_package(tmp_path):
    with pytest.raises(UsageError, match="is no package"):
        open_package(tmp_path)


@pytest.mark.parametrize("text", ["not json", "[]", '{"subject": [{"name": "x"}]}'])
def test_a_broken_receipt_fails_verification(tmp_path, text):
    (tmp_path / "receipt.json").write_text(text)
    with pytest.raises(VerificationError, match="no in-toto statement"):
        open_package(tmp_path)


def test_invisible_characters_become_escapes_and_letters_stay():
    assert printable("a\x1b[31m\u202eb\ud800é漢") == "a\\x1b[31m\\u202eb\\ud800é漢"
    assert markdown("a|b`c") == "a\\|b\\`c"
