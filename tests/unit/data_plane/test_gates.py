"""Gates: each violation is named with its samples; a gate that broke is never called bad data."""

import json

import pytest

from vitops.config.datasets import FolderSource, Gates
from vitops.data import ingest
from vitops.data.configured import IngestConfig, ValidateConfig
from vitops.data.gates import classification, suite
from vitops.data.gates.checks import Check
from vitops.errors import VitopsError
from vitops.store import manifest

INGEST = IngestConfig(task="classification", source=FolderSource(path="f"), shard_size=100)


@pytest.fixture
def make(tmp_path, write_folder):
    """Ingest files; returns a function that validates them."""

    def ingested(files):
        write_folder(tmp_path / "f", files)
        known = ingest.arrive(tmp_path, INGEST, ())
        ingest.ingest(tmp_path, "pets", INGEST, known=known, out=tmp_path / "shards")

        def validate(gates=None, out="gates"):
            config = ValidateConfig(task="classification", gates=gates or Gates())
            suite.validate(
                tmp_path / "shards", config, dataset="pets", out=tmp_path / out, failed=tmp_path / "tmp/failed.json"
            )
            return json.loads((tmp_path / out / "result.json").read_text())

        return validate

    return ingested


def keys(tmp_path):
    return {one.path: one.key for one in _items(tmp_path)}


def _items(tmp_path):
    with ingest.open_source(INGEST.source, tmp_path) as reader:
        return reader.items()


def test_good_data_passes_and_two_runs_give_the_same_bytes(tmp_path, make, samples):
    validate = make(samples)
    assert validate()["success"]
    validate(out="again")
    assert manifest.check(tmp_path / "gates") == manifest.check(tmp_path / "again")


def test_every_violation_is_named_with_key_and_source_in_one_paragraph(tmp_path, make, samples, picture):
    broken = "set/train/cat/8.jpg"
    samples[broken] = picture(8, side=64, kind="JPEG")[:-2000]
    samples["set/train/dog/9.png"] = samples["set/train/cat/1.png"]
    samples["set/train/dog/10.png"] = picture(10, side=40)
    limits = Gates(min_rows=100, classes=3, labels=("cat", "cow", "dog"), min_per_class=5, max_side=32)
    with pytest.raises(VitopsError) as caught:
        make(samples)(limits)
    message, known = str(caught.value), keys(tmp_path)
    assert "\n" not in message
    for part in (
        "Row count (expect_table_row_count_to_be_between): found 8;",
        f"Decodable (expect_column_values_to_be_in_set): 1 sample: {known[broken]} ({broken}: ",
        f"Sizes (expect_column_values_to_be_between): 1 sample: {known['set/train/dog/10.png']}",
        "Class count (expect_column_unique_value_count_to_be_between): found 2;",
        "class cat with 4",
        "Label set (expect_column_distinct_values_to_equal_set): missing cow;",
        "Duplicates (expect_column_values_to_be_unique): 2 samples: ",
        "pipelines.yaml under datasets.pets.gates",
    ):
        assert part in message
    assert not (tmp_path / "gates").exists()
    assert not json.loads((tmp_path / "tmp/failed.json").read_text())["success"]


def test_at_most_ten_samples_are_named(make, picture):
    files = {f"{name}/{number}.png": picture(1) for name in ("cat", "dog") for number in range(8)}
    with pytest.raises(VitopsError, match=r"16 samples: .* and 6 more;") as caught:
        make(files)()
    assert str(caught.value).count("(cat/") == 2 * 8


def test_equal_pixels_in_other_bytes_are_duplicates(make, samples, picture):
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.open(io.BytesIO(samples["set/train/cat/1.png"])).save(stream, "PNG", compress_level=1)
    samples["set/test/cat/7.png"] = stream.getvalue()
    assert samples["set/test/cat/7.png"] != samples["set/train/cat/1.png"]
    with pytest.raises(VitopsError, match=r"Duplicates \(expect_compound_columns_to_be_unique\): 2 samples"):
        make(samples)()


def test_duplicates_only_warn_where_asked_and_are_recorded(make, samples):
    samples["set/train/dog/9.png"] = samples["set/train/cat/1.png"]
    result = make(samples)(Gates(duplicates="warn"))
    found = [one for one in result["gates"] if one["gate"] == "duplicates"]
    assert result["success"] and [one["unexpected"] for one in found] == [2, 2]
    assert {one["source"] for one in found[0]["samples"]} == {"set/train/dog/9.png", "set/train/cat/1.png"}


def test_a_gate_that_cannot_be_evaluated_is_a_defect_of_the_gate(tmp_path, make, samples, monkeypatch):
    broken = Check("ghost", "ExpectColumnValuesToNotBeNull", {"column": "ghost"}, "nothing helps")
    listed = classification.checks
    monkeypatch.setattr(classification, "checks", lambda gates: [*listed(gates), broken])
    with pytest.raises(VitopsError, match=r"gate ghost .* broke and says nothing about the data: .*ghost"):
        make(samples)()
