"""Ingest: deterministic shards and a table that tells the truth about every stored byte."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import webdataset
from PIL import Image

from vitops.config.datasets import FolderSource
from vitops.data import ingest, table
from vitops.data.configured import IngestConfig
from vitops.data.profile import perceptual_hash, profile
from vitops.errors import VitopsError
from vitops.store import manifest

CONFIG = IngestConfig(task="classification", source=FolderSource(path="f", licence="CC0"), shard_size=2)


def run(root, known=(), out="shards"):
    """Arrive and ingest; (arrivals, digest, rows)."""
    known = ingest.arrive(root, CONFIG, known)
    ingest.ingest(root, "pets", CONFIG, known=known, out=root / out)
    return known, manifest.check(root / out), table.read(root / out / "samples.parquet").to_pylist()


@pytest.fixture
def project(tmp_path, write_folder, samples):
    write_folder(tmp_path / "f", samples)
    return tmp_path


def test_rows_describe_the_stored_bytes(project, samples):
    _, _, rows = run(project)
    assert [row["slot"] for row in rows] == [0, 1, 2, 3, 4]
    for row in rows:
        data = (project / "shards" / row["shard"]).read_bytes()[row["offset"] :][: row["size"]]
        assert data == samples[row["source"]]
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        pixels = Image.open(io.BytesIO(data)).convert("RGB").tobytes()
        assert row["pixel_sha256"] == hashlib.sha256(pixels).hexdigest()
        assert (row["width"], row["height"], row["mode"], row["decodable"], row["error"]) == (16, 16, "RGB", True, "")
        assert (row["class"], row["licence"]) == (("cat", "dog")[row["label"]], "CC0")


def test_the_dataset_file_names_classes_in_label_order(project):
    run(project)
    assert json.loads((project / "shards/dataset.json").read_text()) == {
        "arrivals": 1,
        "classes": ["cat", "dog"],
        "dataset": "pets",
        "licence": "CC0",
        "samples": 5,
        "task": "classification",
    }


def test_the_offset_index_agrees_with_the_table(project):
    _, _, rows = run(project)
    found = np.concatenate(
        [np.load(path, allow_pickle=False) for path in sorted((project / "shards").rglob("*.idx.npy"))]
    )
    assert found.dtype == np.dtype("<i8")
    assert found.tolist() == [[row["slot"], row["offset"], row["size"]] for row in rows]


def test_tar_headers_name_no_time_owner_or_mode_of_this_machine(project):
    run(project)
    with tarfile.open(project / "shards/0000/000000.tar") as tar:
        facts = {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in tar}
    assert facts == {(0, 0, 0, "", "", 0o644)}


def test_stock_webdataset_reads_the_shards(project, monkeypatch):
    run(project)
    monkeypatch.setenv("WDS_SECURE", "1")
    url = str(project / "shards/0000/000000.tar")
    found = list(webdataset.WebDataset(url, shardshuffle=False).decode("rgb8"))
    assert [one["json"]["path"] for one in found] == ["set/test/cat/1.png", "set/test/dog/1.jpeg"]
    assert all(one.get("png", one.get("jpg")).shape == (16, 16, 3) for one in found)


def test_two_builds_and_any_number_of_processes_give_the_same_bytes(project, monkeypatch):
    first = run(project)[1]
    monkeypatch.setattr("vitops.data.profile.FEW", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert run(project, out="again")[1] == first


def test_growing_step_by_step_gives_the_bytes_of_a_build_from_scratch(project, picture):
    known, _, _ = run(project)
    tars = {path: path.read_bytes() for path in (project / "shards").rglob("*.tar")}
    for number in (6, 7, 8):
        (project / f"f/set/train/cat/{number}.png").write_bytes(picture(number))
        known, digest, _ = run(project, known)
        assert run(project, known, out="scratch")[1] == digest
    assert all(path.read_bytes() == data for path, data in tars.items())
    assert len(known) == 4


def test_a_removed_sample_rewrites_its_own_shard_only(project):
    known, _, before = run(project)
    tars = {path: path.read_bytes() for path in (project / "shards").rglob("*.tar")}
    (project / "f" / before[2]["source"]).unlink()
    _, _, after = run(project, known)
    assert [row["slot"] for row in after] == [0, 1, 3, 4]
    changed = [path.name for path, data in tars.items() if path.read_bytes() != data]
    assert changed == ["000001.tar"]
    assert before[2]["sha256"] not in json.dumps([row["sha256"] for row in after])


def test_an_image_that_does_not_decode_keeps_its_row_and_says_why(project, samples):
    name = "set/train/cat/2.jpg"
    (project / "f" / name).write_bytes(samples[name][:-300])
    (project / "f/set/train/dog/1.png").write_bytes(b"no image")
    rows = {row["source"]: row for row in run(project)[2]}
    assert (rows[name]["decodable"], rows[name]["width"], rows[name]["pixel_sha256"]) == (False, None, None)
    assert "truncated" in rows[name]["error"].lower()
    assert rows["set/train/dog/1.png"]["error"] == "not a JPEG or PNG image"
    assert rows["set/train/cat/1.png"]["decodable"]


def test_ingest_refuses_arrivals_that_are_not_the_sources(project, picture):
    known = ingest.arrive(project, CONFIG, ())
    (project / "f/set/train/cat/9.png").write_bytes(picture(9))
    with pytest.raises(VitopsError, match=r"dvc repro arrive@pets"):
        ingest.ingest(project, "pets", CONFIG, known=known, out=project / "shards")
    assert not (project / "shards").exists()


def test_a_failed_build_leaves_the_previous_output(project, monkeypatch):
    _, digest, _ = run(project)
    monkeypatch.setattr("vitops.data.table.write", lambda *_: (_ for _ in ()).throw(RuntimeError("stop")))
    with pytest.raises(RuntimeError, match="stop"):
        run(project)
    assert manifest.check(project / "shards") == digest
    assert [path.name for path in project.glob(".*")] == []


def test_profiles_hold_what_can_be_computed_by_hand():
    image = Image.new("L", (4, 2), 0)
    image.putdata([0, 255, 0, 255, 0, 255, 0, 255])
    stream = io.BytesIO()
    image.save(stream, "PNG")
    found = profile(stream.getvalue())
    assert (found.width, found.height, found.mode, found.mean, found.entropy) == (4, 2, "L", 0.5, 1.0)


def test_an_image_of_more_than_eight_bits_is_not_clipped_to_white():
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(stream, format="PNG")
    assert "convert it to 8 bits" in profile(stream.getvalue()).error


def test_an_image_of_too_many_pixels_is_not_decoded(monkeypatch, picture):
    monkeypatch.setattr("vitops.data.profile.MAX_PIXELS", 100)
    assert profile(picture(1)).error == "16 x 16 pixels, more than 100"


def test_the_perceptual_hash_moves_little_under_recompression_and_much_between_images(picture):
    def hashed(data):
        return perceptual_hash(Image.open(io.BytesIO(data)).convert("L"))

    smooth = [Image.open(io.BytesIO(picture(number, side=4))).resize((64, 64)) for number in (1, 2)]
    encoded = []
    for image, quality in ((smooth[0], 95), (smooth[0], 50), (smooth[1], 95)):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        encoded.append(hashed(stream.getvalue()))
    same, other = (encoded[0] ^ encoded[1]).bit_count(), (encoded[0] ^ encoded[2]).bit_count()
    assert same <= 8 < 16 <= other


def test_the_perceptual_hash_is_that_of_a_textbook_dct():
    pixels = np.random.RandomState(3).randint(0, 256, (32, 32), dtype=np.uint8)
    k, x = np.meshgrid(np.arange(8), np.arange(32), indexing="ij")
    basis = np.cos(np.pi * (2 * x + 1) * k / 64)
    frequencies = (basis @ pixels @ basis.T).ravel()
    bits = frequencies > np.median(frequencies[1:])
    assert perceptual_hash(Image.fromarray(pixels)) == int("".join(str(int(bit)) for bit in bits), 2)
