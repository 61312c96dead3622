"""Sources: the same samples from tar, zip and folder, and nothing else than samples."""

import hashlib
import io
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitops.config.datasets import ArchiveSource, ArraysSource, FolderSource
from vitops.data import source_file
from vitops.data.ingest import open_source
from vitops.data.sources import items as layout
from vitops.data.sources import png
from vitops.errors import UsageError, VitopsError
from vitops.store.stat_memo import StatMemo


def read(source, root):
    with open_source(source, root) as reader:
        return [(one.path, one.key, one.class_name, one.subset, one.extension, one.read()) for one in reader.items()]


@pytest.fixture
def archive(tmp_path, write_tar, samples):
    write_tar(tmp_path / "a.tar", samples)
    return ArchiveSource(path="a.tar")


def refused(archive, tmp_path, match):
    with pytest.raises(VitopsError, match=match):
        read(archive, tmp_path)


def test_tar_zip_and_folder_give_the_same_samples_in_path_order(tmp_path, archive, samples, write_folder):
    write_folder(tmp_path / "folder", samples)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in reversed(samples):
            packed.writestr(name, samples[name])
    found = read(archive, tmp_path)
    assert [one[0] for one in found] == sorted(samples)
    assert [one[2:5] for one in found][:2] == [("cat", "test", "png"), ("dog", "test", "jpg")]
    assert all(one[5] == samples[one[0]] for one in found)
    assert read(FolderSource(path="folder"), tmp_path) == found == read(ArchiveSource(path="a.zip"), tmp_path)


def test_class_folders_without_subsets_have_an_empty_subset(tmp_path, write_folder, picture):
    write_folder(tmp_path / "f", {"cat/1.png": picture(1), "dog/2.png": picture(2)})
    assert [one[2:4] for one in read(FolderSource(path="f"), tmp_path)] == [("cat", ""), ("dog", "")]


def test_a_link_to_an_archive_is_the_archive(tmp_path, archive):
    (tmp_path / "link.tar").symlink_to(tmp_path / "a.tar")
    linked, memo = ArchiveSource(path="link.tar"), StatMemo(tmp_path / "cache")
    assert read(linked, tmp_path) == read(archive, tmp_path)
    digests = [source_file.digest(tmp_path / one, memo) for one in ("a.tar", "link.tar")]
    assert digests == [hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()] * 2


def test_a_missing_archive_names_the_key_and_the_place(tmp_path):
    with pytest.raises(UsageError, match=r"datasets\.cifar10\.source\.path .*copy or link .* to data/raw/x\.tar"):
        source_file.locate(tmp_path, "cifar10", ArchiveSource(path="data/raw/x.tar"))
    with pytest.raises(UsageError, match="relative to the project"):
        source_file.locate(tmp_path, "cifar10", ArchiveSource(path="/x.tar"))


@pytest.mark.parametrize("name", ["../cat/1.png", "/cat/1.png", "a/../../cat/1.png"])
def test_members_that_leave_the_archive_are_refused(tmp_path, write_tar, picture, name):
    write_tar(tmp_path / "a.tar", {name: picture(1)})
    refused(ArchiveSource(path="a.tar"), tmp_path, "would leave its folder")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, write_tar, samples, kind):
    member = tarfile.TarInfo("set/train/cat/9.png")
    member.type, member.linkname = kind, "1.png"
    write_tar(tmp_path / "a.tar", samples, member)
    refused(ArchiveSource(path="a.tar"), tmp_path, r"cat/9\.png is a link, a device or sparse")


def test_links_in_a_zip_are_refused(tmp_path, picture):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        info = zipfile.ZipInfo("cat/1.png")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    refused(ArchiveSource(path="a.zip"), tmp_path, "is a link or a device")


def test_links_in_a_folder_are_refused(tmp_path, write_folder, samples):
    write_folder(tmp_path / "f", samples)
    (tmp_path / "f/set/train/cat/9.png").symlink_to(tmp_path / "f/set/train/cat/1.png")
    refused(FolderSource(path="f"), tmp_path, r"cat/9\.png is a link")


def test_members_above_the_size_limit_are_refused(tmp_path, archive, monkeypatch):
    monkeypatch.setattr("vitops.data.sources.archive.MAX_BYTES", 100)
    refused(archive, tmp_path, "bytes, more than 100")


def test_an_archive_that_ends_early_is_refused(tmp_path, archive):
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:1200])
    refused(archive, tmp_path, r"a\.tar is damaged .*again")


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_tar_damaged_at_a_later_header_is_not_read_as_a_smaller_one(tmp_path, archive, damage):
    with tarfile.open(tmp_path / "a.tar") as tar:
        header = tar.getmembers()[-1].offset
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[header + 100] ^= 1
    (tmp_path / "a.tar").write_bytes(data if damage == "flip" else data[: header + 100])
    refused(archive, tmp_path, r"a\.tar is damaged .*again")


def test_a_compressed_tar_is_refused_with_the_way_out(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    refused(ArchiveSource(path="a.tar"), tmp_path, "decompress it")


def test_a_class_folder_without_images_is_refused_in_every_source(tmp_path, write_tar, write_folder, samples):
    empty = tarfile.TarInfo("set/train/cow")
    empty.type = tarfile.DIRTYPE
    write_tar(tmp_path / "a.tar", samples, empty)
    write_folder(tmp_path / "f", samples)
    (tmp_path / "f/set/train/cow").mkdir()
    for source in (ArchiveSource(path="a.tar"), FolderSource(path="f")):
        refused(source, tmp_path, "class folder set/train/cow holds no image")


def test_one_path_twice_is_refused_also_in_two_unicode_forms(tmp_path, write_tar, picture):
    composed = unicodedata.normalize("NFC", "é")
    decomposed = unicodedata.normalize("NFD", composed)
    write_tar(tmp_path / "a.tar", {f"cat/{composed}.png": picture(1), f"cat/{decomposed}.png": picture(2)})
    refused(ArchiveSource(path="a.tar"), tmp_path, "appears twice")


def test_images_outside_class_folders_and_other_formats_are_refused(tmp_path, write_tar, samples, picture):
    for name, match in (("1.png", "no class folder"), ("train/1.png", "no class folder"), ("cat/1.webp", "only .jpg")):
        write_tar(tmp_path / "a.tar", {**samples, name: picture(1)})
        refused(ArchiveSource(path="a.tar"), tmp_path, match)


def test_side_files_and_hidden_files_are_no_samples(tmp_path, write_tar, samples):
    junk = {"README.md": b"x", "set/train/cat/.DS_Store": b"x", "__MACOSX/cat/1.png": b"x", "set/labels.csv": b"x"}
    write_tar(tmp_path / "a.tar", {**samples, **junk})
    assert len(read(ArchiveSource(path="a.tar"), tmp_path)) == len(samples)


def test_class_names_that_are_numbers_are_ordered_by_number():
    assert layout.class_order(["10", "9", "2"]) == ["2", "9", "10"]
    assert layout.class_order(["b", "10", "2"]) == ["10", "2", "b"]


def test_keys_are_twenty_digits_of_the_path_digest(tmp_path, archive):
    path, key, *_ = read(archive, tmp_path)[0]
    assert key == hashlib.sha256(path.encode()).hexdigest()[:20]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (300, 300)])
def test_png_bytes_decode_to_the_pixels(shape):
    pixels = np.random.RandomState(0).randint(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png.encode(pixels)))), pixels)


def test_png_bytes_are_those_of_every_machine():
    assert hashlib.sha256(png.encode(np.arange(64, dtype=np.uint8).reshape(8, 8))).hexdigest() == (
        "b0eb4945328da0f6a155a9246905713af8277632e60ed7ee9bca9bcdf82977de"
    )


def write_arrays(path: Path, **arrays):
    np.savez(path, **arrays)


def test_arrays_become_scaled_greyscale_images(tmp_path):
    images = np.zeros((2, 8, 8), np.uint8)
    images[1] = 16
    write_arrays(tmp_path / "d.npz", images=images, labels=np.array([3, 1]))
    found = read(ArraysSource(path="d.npz", image_size=32, maximum=16), tmp_path)
    assert [one[0] for one in found] == ["1/00000001.png", "3/00000000.png"]
    white = np.asarray(Image.open(io.BytesIO(found[0][5])))
    assert white.shape == (32, 32) and (white == 255).all()


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"images": np.zeros((2, 8, 8), np.uint8)}, "needs images and labels"),
        ({"images": np.zeros((2, 8, 8)), "labels": np.zeros(2, int)}, "must be uint8"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": np.zeros(3, int)}, "labels must be 2 integers"),
        ({"images": np.full((2, 8, 8), 17, np.uint8), "labels": np.zeros(2, int)}, "largest pixel is 17"),
        ({"images": np.array([{}, {}]), "labels": np.zeros(2, int)}, "plain arrays"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, arrays, match):
    write_arrays(tmp_path / "d.npz", **arrays)
    with pytest.raises(VitopsError, match=match):
        read(ArraysSource(path="d.npz", maximum=16), tmp_path)
