"""``data/stages.json`` tells DVC what it cannot see: the code of the data stages and the versions that shape bytes."""

import json

import pytest

from vitops.config.load import load
from vitops.plan import data_code
from vitops.plan.code.digest import vitops_package

PIPELINES = """
datasets:
  digits:
    source: {kind: arrays, path: data/raw/digits.npz}
    splits:
      balanced: {kind: holdout}
  photos:
    source: {kind: folder, path: data/raw/photos}
    splits:
      balanced: {kind: holdout}
      longtail: {kind: longtail}
pipelines: {}
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pipelines.yaml").write_text(PIPELINES)
    return tmp_path


def test_it_is_written_once_and_then_fresh(root):
    assert not data_code.fresh(root)
    assert data_code.write(root)
    assert data_code.fresh(root)
    before = (root / data_code.FILE).stat().st_mtime_ns
    assert not data_code.write(root)
    assert (root / data_code.FILE).stat().st_mtime_ns == before
    document = json.loads((root / data_code.FILE).read_text())
    assert {name: set(stages) for name, stages in document.items()} == {
        "digits": {"ingest", "validate", "split"},
        "photos": {"ingest", "validate", "split"},
    }


def test_stages_share_a_digest_exactly_when_they_use_the_same_implementations(root):
    found = data_code.digests(load(root).datasets)
    assert found["digits"]["validate"] == found["photos"]["validate"]
    assert found["digits"]["ingest"] != found["photos"]["ingest"]
    assert found["digits"]["split"] != found["photos"]["split"]


def test_a_new_library_version_makes_the_file_stale(root, monkeypatch):
    data_code.write(root)
    found = data_code.digests(load(root).datasets)
    monkeypatch.setattr(data_code, "library_version", lambda name: "0" if name == "great-expectations" else "1")
    changed = data_code.digests(load(root).datasets)
    assert not data_code.fresh(root)
    assert changed["digits"]["validate"] != found["digits"]["validate"]


def test_a_damaged_file_is_stale(root):
    data_code.write(root)
    (root / data_code.FILE).write_text("{")
    assert not data_code.fresh(root)
    assert data_code.write(root)
    assert data_code.fresh(root)


def test_stale_names_the_stages_whose_code_is_not_the_written_one(root):
    datasets, package = load(root).datasets, vitops_package()
    assert data_code.stale(root, "digits", datasets["digits"], package) == {"ingest", "validate", "split"}
    data_code.write(root)
    assert data_code.stale(root, "digits", datasets["digits"], package) == set()
    document = json.loads((root / data_code.FILE).read_text())
    document["digits"]["split"] = "0" * 64
    (root / data_code.FILE).write_text(json.dumps(document))
    assert data_code.stale(root, "digits", datasets["digits"], package) == {"split"}
    assert data_code.stale(root, "photos", datasets["photos"], package) == set()
