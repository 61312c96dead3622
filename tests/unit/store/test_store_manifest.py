"""Manifests of folders."""

import hashlib
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitops.errors import VerificationError, VitopsError
from vitops.store import manifest
from vitops.store.manifest import FileEntry

names = st.text(alphabet="abXY9._é", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))
trees = st.dictionaries(
    st.tuples(st.sampled_from(["", "sub/", "sub/deep/"]), names).map("".join),
    st.binary(max_size=50),
    min_size=1,
    max_size=8,
)


def fill(folder: Path, files) -> None:
    for name, data in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def free_of_clashes(tree) -> bool:
    return not any(other.startswith(f"{name}/") for name in tree for other in tree)


@settings(deadline=None)  # disks may be slow
@given(trees.filter(free_of_clashes), st.randoms())
def test_the_digest_depends_on_paths_and_bytes_and_not_on_the_order_of_creation(tree, random):
    items = list(tree.items())
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        fill(Path(one), items)
        random.shuffle(items)
        fill(Path(other), items)
        assert manifest.scan(Path(one)) == manifest.scan(Path(other))
        before = manifest.digest(manifest.scan(Path(one)))
        path = Path(other) / items[0][0]
        path.write_bytes(path.read_bytes() + b"!")
        assert manifest.digest(manifest.scan(Path(other))) != before


@settings(deadline=None)  # disks may be slow
@given(trees.filter(free_of_clashes))
def test_a_manifest_file_reads_back_to_its_entries(tree):
    entries = [FileEntry(name, len(data), "ab" * 32) for name, data in tree.items()]
    assert manifest.parse(manifest.render(entries)) == sorted(entries)


@settings(deadline=None)
@given(st.data())
def test_any_changed_byte_of_a_manifest_file_is_noticed(data):
    entries = [FileEntry("a", 1, "ab" * 32), FileEntry("sub/b", 20, "cd" * 32)]
    raw = bytearray(manifest.render(entries))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    with suppress(ValueError):
        assert manifest.digest(manifest.parse(bytes(raw))) != manifest.digest(entries)


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a\0b"])
def test_a_path_that_leaves_its_folder_is_no_entry(path):
    with pytest.raises(ValueError):
        FileEntry(path, 0, "ab" * 32)


def test_the_digest_is_that_of_the_written_out_list():
    empty = hashlib.sha256(b"").hexdigest()
    written = f'[{{"path":"a","sha256":"{empty}","size":0}},{{"path":"b/c","sha256":"{empty}","size":0}}]'
    entries = [FileEntry("b/c", 0, empty), FileEntry("a", 0, empty)]
    assert manifest.digest(entries) == hashlib.sha256(written.encode()).hexdigest()


def test_check_names_what_is_altered_missing_or_extra(tmp_path):
    fill(tmp_path, [("a", b"1"), ("sub/b", b"2")])
    digest = manifest.write(tmp_path)
    assert manifest.check(tmp_path) == digest
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(VerificationError, match=r"/a: the file is altered"):
        manifest.check(tmp_path)
    (tmp_path / "a").unlink()
    (tmp_path / "sub/new").write_bytes(b"")
    found = {path.name: sentence for path, sentence in manifest.differences(tmp_path)}
    assert set(found) == {"a", "new"}
    assert "missing" in found["a"]


def test_writing_the_manifest_again_gives_the_same_digest_and_bytes(tmp_path):
    fill(tmp_path, [("a", b"1")])
    first, raw = manifest.write(tmp_path), (tmp_path / "manifest.json").read_bytes()
    assert (manifest.write(tmp_path), (tmp_path / "manifest.json").read_bytes()) == (first, raw)
    with pytest.raises(VerificationError, match=r"no manifest\.json"):
        manifest.check(tmp_path / "sub")


@pytest.mark.parametrize("name", ["file", "folder"])
def test_a_link_is_refused(tmp_path, name):
    (tmp_path / "outside").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "outside" if name == "folder" else "/etc/hostname")
    with pytest.raises(VitopsError, match="link"):
        manifest.scan(tmp_path / "in")
