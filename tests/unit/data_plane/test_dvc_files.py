"""Reading DVC's files without DVC, and never trusting their bytes."""

import hashlib
import json

import pytest

from vitops.data.dvc_files import DvcFiles
from vitops.store import manifest


def put(store, data, suffix=""):
    md5 = hashlib.md5(data).hexdigest()
    path = store / "files" / "md5" / md5[:2] / (md5[2:] + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return md5 + suffix


def put_folder(store, folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listing = [{"md5": put(store, p.read_bytes()), "relpath": p.relative_to(folder).as_posix()} for p in files]
    return put(store, json.dumps(listing).encode(), ".dir")


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "splits" / "tail"
    folder.mkdir(parents=True)
    (folder / "train.parquet").write_bytes(b"rows")
    manifest.write(folder)
    return folder.parent


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text("[core]\n    remote = local\n['remote \"local\"']\n    url = ../../remote\n")
    return root


def damage(store, data):
    md5 = hashlib.md5(data).hexdigest()
    (store / "files" / "md5" / md5[:2] / md5[2:]).write_bytes(b"evil")


@pytest.mark.parametrize("place", ["project/.dvc/cache", "remote"])
def test_an_output_can_be_restored_from_cache_or_local_remote(tmp_path, project, output, place):
    md5 = put_folder(tmp_path / place, output)
    assert DvcFiles(project).restorable(md5) == {"tail": manifest.check(output / "tail")}


def test_a_damaged_object_makes_the_output_unrestorable(tmp_path, project, output):
    md5 = put_folder(tmp_path / "project/.dvc/cache", output)
    damage(tmp_path / "project/.dvc/cache", b"rows")
    assert DvcFiles(project).restorable(md5) is None


def test_a_damaged_object_in_the_cache_does_not_hide_the_remotes(tmp_path, project, output):
    put_folder(tmp_path / "project/.dvc/cache", output)
    md5 = put_folder(tmp_path / "remote", output)
    damage(tmp_path / "project/.dvc/cache", b"rows")
    assert DvcFiles(project).restorable(md5)


def test_bytes_that_agree_with_md5_but_not_with_our_manifest_are_not_restored(tmp_path, project, output):
    (output / "tail/train.parquet").write_bytes(b"other")
    assert DvcFiles(project).restorable(put_folder(tmp_path / "remote", output)) is None


def test_files_that_no_manifest_names_are_not_restored(tmp_path, project, output):
    (output / "extra").write_bytes(b"x")
    assert DvcFiles(project).restorable(put_folder(tmp_path / "remote", output)) is None


def test_damaged_cache_objects_are_removed_and_sound_ones_stay(tmp_path, project, output):
    cache = tmp_path / "project/.dvc/cache"
    md5 = put_folder(cache, output)
    damage(cache, b"rows")
    assert len(DvcFiles(project).remove_damaged(md5)) == 1
    assert DvcFiles(project).remove_damaged(md5) == []
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 2


def test_an_output_that_was_never_made_endangers_no_object(tmp_path, project, output):
    put_folder(tmp_path / "project/.dvc/cache", output)
    before = sorted((tmp_path / "project/.dvc/cache").rglob("*"))
    files = DvcFiles(project)
    assert (files.remove_damaged(None), files.restorable(None), files.intact(None)) == ([], None, None)
    for name in ("", "..", "../../x", "a" * 31):
        with pytest.raises(ValueError, match="names no object"):
            files.remove_damaged(name)
    assert sorted((tmp_path / "project/.dvc/cache").rglob("*")) == before


def test_a_listing_that_names_paths_instead_of_objects_is_not_believed(tmp_path, project):
    listing = [{"md5": "../../../../victim", "relpath": "manifest.json"}]
    md5 = put(tmp_path / "project/.dvc/cache", json.dumps(listing).encode(), ".dir")
    assert DvcFiles(project).listing(md5) is None


def test_the_lock_file_is_read_by_stage_instance(project):
    project.joinpath("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  ingest@a:\n    cmd: x\n"
        f"    deps: [{{path: data/raw/a.tar, md5: {'1' * 32}}}]\n"
        f"    outs: [{{path: data/a/shards, md5: {'0' * 32}.dir}}]\n"
    )
    found = DvcFiles(project).lock("ingest@a")
    assert (found.out("data/a/shards"), found.dep("data/raw/a.tar")) == ("0" * 32 + ".dir", "1" * 32)
    assert found.out("data/a/other") is None
    assert DvcFiles(project).lock("ingest@b").entry is None
