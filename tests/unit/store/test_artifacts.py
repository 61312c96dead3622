"""Artifacts: publish, present, materialize, find, discard, and what a death leaves."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitops.errors import UsageError, VerificationError, VitopsError
from vitops.store.artifacts import Store
from vitops.store.stat_memo import StatMemo


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "weights").write_bytes(b"w" * 5000)
    (out / "sub/model.json").write_text("{}\n")
    return out


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


def tree(top: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in top.rglob("*") if path.is_file())
    return {str(path.relative_to(top)): (path.read_bytes(), path.stat().st_ino) for path in files}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def flip(path: Path, position: int, bits: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= bits
    overwrite(path, bytes(raw))


def test_publishing_twice_changes_nothing(store, folder):
    first = store.publish(folder, "train", {"epochs": 3})
    before = tree(store.home / "objects")
    again = store.publish(folder, "train", {"epochs": 3})
    assert again == first
    assert tree(store.home / "objects") == before


def test_the_layout_is_literal_and_blobs_are_read_only(store, folder):
    ref = store.publish(folder, "train")
    assert names(store.home) == ["cache", "checkpoints", "ledger", "objects", "runs", "tmp"]
    entries = store.manifest(ref.digest)
    assert [entry.path for entry in entries] == ["sub/model.json", "weights"]
    for entry in entries:
        path = store.home / "objects/blobs" / entry.sha256[:2] / entry.sha256
        assert path.stat().st_mode & 0o777 == 0o444
    assert (store.home / "objects/manifests" / f"{ref.digest}.json").is_file()


def test_what_is_handed_out_is_what_was_published_and_may_be_edited(store, folder):
    ref = store.publish(folder, "train")
    copy = store.materialize(ref.digest)
    assert {name: data for name, (data, _) in tree(copy).items()} == {
        name: data for name, (data, _) in tree(folder).items()
    }
    (copy / "weights").write_bytes(b"edited")
    (copy / "extra").write_bytes(b"")
    assert store.materialize(ref.digest) == copy
    assert (copy / "weights").read_bytes() == b"w" * 5000
    assert not (copy / "extra").exists()
    assert store.present(ref.digest)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 4999), bits=st.integers(1, 255))
def test_any_flipped_byte_of_a_blob_is_found_and_healed_by_publishing(store, folder, position, bits):
    ref = store.publish(folder, "train")
    assert store.present(ref.digest)
    entry = store.manifest(ref.digest)[1]
    flip(store.blob(entry.sha256), position, bits)
    store.memo.save()
    assert not store.present(ref.digest)
    assert not Store(store.home).present(ref.digest)
    with pytest.raises(VerificationError, match=rf"{ref.digest}: weights .*{entry.sha256}, found [0-9a-f]{{64}}. Run"):
        store.materialize(ref.digest)
    assert store.publish(folder, "train") == ref
    assert store.present(ref.digest)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_of_a_manifest_is_found_and_healed_by_publishing(store, folder, data):
    ref = store.publish(folder, "train")
    path = store.manifests / f"{ref.digest}.json"
    flip(path, data.draw(st.integers(0, path.stat().st_size - 1)), data.draw(st.integers(1, 255)))
    assert not store.present(ref.digest)
    with pytest.raises(VerificationError, match=ref.digest):
        store.materialize(ref.digest)
    store.publish(folder, "train")
    assert store.present(ref.digest)


def test_a_missing_blob_is_not_present_and_named(store, folder):
    ref = store.publish(folder, "train")
    store.blob(store.manifest(ref.digest)[0].sha256).unlink()
    assert not store.present(ref.digest)
    with pytest.raises(VerificationError, match=r"sub/model\.json .*found no file"):
        store.materialize(ref.digest)


def test_a_blob_altered_behind_its_stat_record_is_not_present_once_a_reader_found_it(store, folder, monkeypatch):
    ref = store.publish(folder, "train")
    entry = store.manifest(ref.digest)[1]
    time.sleep(0.03)
    assert store.present(ref.digest)
    before = store.blob(entry.sha256).stat()
    real = Path.stat
    flip(store.blob(entry.sha256), 0, 1)
    frozen = lambda path, **kwargs: before if path.name == entry.sha256 else real(path, **kwargs)  # noqa: E731
    monkeypatch.setattr(Path, "stat", frozen)
    assert store.present(ref.digest)
    with pytest.raises(VerificationError):
        store.materialize(ref.digest)
    assert not store.present(ref.digest)


def test_present_does_not_read_blobs_again(store, folder, monkeypatch):
    ref = store.publish(folder, "train")
    time.sleep(0.03)
    assert store.present(ref.digest)
    store.memo.save()
    monkeypatch.setattr("vitops.store.artifacts.sha256_file", lambda path: pytest.fail(f"{path} was read"))
    assert Store(store.home).present(ref.digest)


def test_an_unknown_artifact_is_a_usage_error_with_the_nearest(store, folder):
    ref = store.publish(folder, "train")
    assert store.find(ref.digest[:6]) == ref.digest
    assert store.find(ref.digest) == ref.digest
    wrong = ref.digest[:7] + ("0" if ref.digest[7] != "0" else "1")
    with pytest.raises(UsageError, match=rf"Did you mean {ref.digest[:8]}"):
        store.find(wrong)
    for bad in (ref.digest[:5], "xyzxyz", "../../etc", ref.digest.upper() + "G"):
        with pytest.raises(UsageError):
            store.find(bad)
    with pytest.raises(UsageError, match="no artifact"):
        store.materialize("0" * 64)
    with pytest.raises(UsageError):
        store.manifest("../../../etc/passwd")


def test_an_ambiguous_prefix_lists_the_candidates(store, monkeypatch):
    digests = ["abcdef" + "0" * 58, "abcdef" + "1" * 58]
    monkeypatch.setattr(store, "digests", lambda: digests)
    with pytest.raises(UsageError, match=r"abcdef000000, abcdef111111"):
        store.find("abcdef")


def test_an_empty_folder_cannot_be_published(store, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(VitopsError, match="holds no file"):
        store.publish(tmp_path / "empty", "train")


def test_discard_keeps_the_blobs_of_others(store, folder):
    first = store.publish(folder, "train")
    (folder / "weights").write_bytes(b"other")
    second = store.publish(folder, "train")
    store.materialize(first.digest)
    store.discard(first.digest)
    assert store.digests() == [second.digest]
    assert store.present(second.digest)
    assert len([path for path in store.blobs.rglob("*") if path.is_file()]) == 2
    assert names(store.cache / "artifacts") == []


def test_a_materialised_artifact_that_is_a_link_is_not_followed(store, folder, tmp_path):
    ref = store.publish(folder, "train")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("keep")
    (store.cache / "artifacts" / ref.digest).symlink_to(tmp_path / "precious")
    assert names(store.materialize(ref.digest)) == ["sub", "weights"]
    assert names(tmp_path / "precious") == ["file"]


def test_a_workspace_is_empty_and_gone_afterwards(store):
    with store.workspace() as one, store.workspace() as two:
        assert one != two
        assert names(one) == []
        (one / "file").write_text("x")
    assert not one.exists()


def test_a_lock_name_cannot_leave_the_store(store):
    with pytest.raises(ValueError), store.lock("../../x"):
        pass


DIE = """
import os, signal, sys
from pathlib import Path
from vitops.store.artifacts import Store
store = Store(Path(sys.argv[1]))
with store.workspace() as out:
    (out / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_opening_removes_what_a_killed_process_left_and_nothing_of_the_living(tmp_path):
    home = tmp_path / "home"
    living = Store(home)
    with living.workspace() as mine:
        (mine / "file").write_text("x")
        process = subprocess.run([sys.executable, "-c", DIE, str(home)], check=False)
        assert process.returncode == -9
        assert len(list((home / "tmp").glob("*/*/half"))) == 1
        Store(home)
        assert list((home / "tmp").glob("*/*/half")) == []
        assert (mine / "file").exists()


def test_opening_a_store_makes_no_scratch_folder(tmp_path):
    Store(tmp_path / "home")
    assert names(tmp_path / "home/tmp") == ["locks"]


def test_the_memo_of_a_store_is_in_its_cache(store):
    assert isinstance(store.memo, StatMemo)
    assert store.memo.folder == store.home / "cache/stat"


def test_one_file_is_read_hashed(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.json").write_bytes(b"{}")
    store = Store(tmp_path / "home")
    digest = store.publish(folder, "train").digest
    assert store.read(digest, "model.json") == b"{}"
    assert store.read(digest, "weights") is None
    with pytest.raises(UsageError):
        store.read("0" * 64, "model.json")
    blob = store.blob(store.manifest(digest)[0].sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"[]")
    with pytest.raises(VerificationError, match="is not what was published"):
        store.read(digest, "model.json")
    blob.unlink()
    with pytest.raises(VerificationError, match="is not what was published"):
        store.read(digest, "model.json")
