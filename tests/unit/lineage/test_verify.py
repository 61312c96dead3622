"""Verify: every altered, missing or stray thing is named, and nothing else."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitops.lineage.verify import verify
from vitops.store import manifest
from vitops.store.artifacts import Store


def flip(path, position, bits=1):
    raw = bytearray(path.read_bytes())
    raw[position] ^= bits
    path.chmod(0o644)
    path.write_bytes(bytes(raw))


def found(lineage, root=None):
    return {problem.path: problem.sentence for problem in verify(lineage.store.home, root)}


def blob_of(lineage, stage, number=1):
    return lineage.store.blob(lineage.store.manifest(lineage.digests[stage])[number].sha256)


def test_an_untouched_store_has_no_problem(lineage):
    assert found(lineage) == {}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_of_any_object_or_receipt_is_named(lineage, data):
    home = lineage.store.home
    files = sorted(p for top in ("objects", "ledger") for p in (home / top).rglob("*") if p.is_file())
    path = data.draw(st.sampled_from(files))
    before = path.read_bytes()
    flip(path, data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(1, 255)))
    named = found(lineage)
    path.write_bytes(before)
    assert path in named
    assert found(lineage) == {}


def test_an_altered_blob_is_named_with_its_artifact_and_file(lineage):
    path = blob_of(lineage, "student")
    flip(path, 0)
    assert list(found(lineage)) == [path]
    assert f"weights of artifact {lineage.digests['student']}" in found(lineage)[path]


def test_what_verify_found_behind_a_stat_record_is_no_hit_any_more(lineage, monkeypatch):
    digest = lineage.digests["student"]
    time.sleep(0.03)
    assert lineage.store.present(digest)
    lineage.store.memo.save()
    path = blob_of(lineage, "student")
    before, real = path.stat(), type(path).stat
    flip(path, 0)
    monkeypatch.setattr(type(path), "stat", lambda p, **kw: before if p.name == path.name else real(p, **kw))
    assert Store(lineage.store.home).present(digest)
    assert found(lineage)
    assert not Store(lineage.store.home).present(digest)


def test_a_missing_blob_manifest_and_artifact_are_named(lineage):
    blob = blob_of(lineage, "teacher")
    blob.unlink()
    assert list(found(lineage)) == [blob]
    gone = lineage.store.manifests / f"{lineage.digests['package']}.json"
    gone.unlink()
    named = found(lineage)
    assert set(named) == {blob, gone}
    assert "receipt 3 (stage package of quickstart)" in named[gone]


def test_an_artifact_that_a_newer_receipt_of_its_key_replaced_may_go(lineage, tmp_path):
    old = lineage.digests["package"]
    lineage.make(tmp_path, "package", "package", {"student": lineage.digests["student"]}, b"measured again")
    flip(lineage.store.blob(lineage.store.manifest(old)[1].sha256), 0)
    assert len(found(lineage)) == 1
    lineage.store.discard(old)
    assert found(lineage) == {}


def test_strays_among_the_objects_are_named(lineage):
    home = lineage.store.home
    strays = [home / "objects/x", home / "objects/blobs/ab/readme", home / "objects/manifests/x.json"]
    blob = blob_of(lineage, "student")
    strays.append(home / "objects/blobs/zz" / blob.name)
    for path in strays:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(blob.read_bytes())
    assert set(found(lineage)) == set(strays)


def test_cache_tmp_and_runs_are_not_looked_at(lineage):
    copy = lineage.store.materialize(lineage.digests["student"])
    (copy / "weights").write_bytes(b"edited")
    for name in ("cache/x", "tmp/x", "runs/x"):
        (lineage.store.home / name).write_bytes(b"")
    assert found(lineage) == {}


def test_checkpoints_are_hashed_by_their_own_manifest(lineage):
    good = lineage.store.checkpoints("a" * 64) / "000005"
    good.mkdir()
    (good / "weights").write_bytes(b"w" * 100)
    manifest.write(good)
    (lineage.store.checkpoints("a" * 64) / "unfinished").mkdir()
    assert found(lineage) == {}
    flip(good / "weights", 3)
    assert list(found(lineage)) == [good / "weights"]


@pytest.mark.parametrize("name", ["shards", "gates", "splits/longtail"])
def test_data_folders_are_hashed_by_their_manifest(lineage, tmp_path, name):
    root = tmp_path / "project"
    folder = root / "data/digits" / name
    (folder / "0000").mkdir(parents=True)
    (folder / "0000/000000.tar").write_bytes(b"t" * 1000)
    manifest.write(folder)
    assert found(lineage, root) == {}
    flip(folder / "0000/000000.tar", 500)
    assert list(found(lineage, root)) == [folder / "0000/000000.tar"]
    (folder / "0000/000000.tar").unlink()
    assert "missing" in found(lineage, root)[folder / "0000/000000.tar"]
    (folder / "manifest.json").write_text("{}")
    assert list(found(lineage, root)) == [folder / "manifest.json"]


def test_publishing_again_repairs_what_verify_named(lineage, tmp_path):
    for stage in ("teacher", "student"):
        flip(blob_of(lineage, stage), 7)
    (lineage.store.manifests / f"{lineage.digests['package']}.json").unlink()
    assert len(found(lineage)) == 3
    for stage in ("teacher", "student", "package"):
        assert lineage.store.publish(tmp_path / "out" / stage, "x").digest == lineage.digests[stage]
    assert found(lineage) == {}
