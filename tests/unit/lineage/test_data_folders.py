"""Data folders are tied to receipts and to dvc.lock: a manifest that was rewritten, or taken away, is noticed."""

import hashlib
import json
import shutil

import pytest
import yaml

from vitops.lineage.verify import verify
from vitops.store import manifest
from vitops.store.refs import Ref

FOLDERS = {"ingest": "data/digits/shards", "validate": "data/digits/gates", "split": "data/digits/splits/longtail"}


class Data:
    """A project's data folders, their receipts and their dvc.lock."""

    def __init__(self, root, lineage, statement):
        self.root, self.lineage, self.statement = root, lineage, statement

    def make(self, kind, content=b"made", *, folder=None):
        folder = self.root / (folder or FOLDERS[kind])
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "0000").mkdir(parents=True)
        (folder / "0000/a.bin").write_bytes(content)
        manifest.write(folder)
        return folder

    def receipt(self, kind, folder):
        parameters = {"dataset": "digits"} | ({"split": folder.name} if kind == "split" else {})
        ref = Ref(kind=kind, digest=manifest.digest(manifest.read(folder)))
        files = manifest.read(folder)
        key = hashlib.sha256(f"{kind}{ref.digest}".encode()).hexdigest()
        self.lineage.ledger.append(self.statement(ref, files, stage=kind, kind=kind, key=key, parameters=parameters))

    def lock(self, *outputs):
        """What DVC writes for these folders, as its documentation of ``.dir`` files says."""
        stages = {}
        for output in outputs:
            files = sorted(path for path in output.rglob("*") if path.is_file())
            tree = [
                {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.relative_to(output).as_posix()}
                for path in files
            ]
            md5 = hashlib.md5(json.dumps(tree).encode()).hexdigest()
            path = output.relative_to(self.root).as_posix()
            stages[f"{path}@digits"] = {"cmd": "x", "outs": [{"path": path, "hash": "md5", "md5": f"{md5}.dir"}]}
        (self.root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))

    def problems(self):
        return {problem.path: problem.sentence for problem in verify(self.lineage.store.home, self.root)}


@pytest.fixture
def data(tmp_path, lineage, full_statement):
    return Data(tmp_path / "project", lineage, full_statement)


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_manifest_rewritten_to_match_altered_files_is_named_with_the_receipt(data, kind):
    folder = data.make(kind)
    data.receipt(kind, folder)
    assert data.problems() == {}
    data.make(kind, b"forged")
    ((path, sentence),) = data.problems().items()
    assert path == folder / "manifest.json"
    assert f"receipt 4 (stage {kind} of quickstart)" in sentence and "dvc checkout --force" in sentence


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_missing_manifest_is_named_with_the_receipt(data, kind):
    folder = data.make(kind)
    data.receipt(kind, folder)
    (folder / "manifest.json").unlink()
    ((path, sentence),) = data.problems().items()
    assert path == folder / "manifest.json" and sentence.startswith("missing: receipt 4")


def test_an_older_version_that_was_checked_out_is_vouched_for_by_its_own_receipt(data):
    for content in (b"old", b"new", b"old"):
        data.receipt("ingest", data.make("ingest", content))
    data.make("ingest", b"new")
    assert data.problems() == {}


def test_receipts_of_another_dataset_or_split_vouch_for_nothing_and_accuse_nothing(data):
    data.receipt("split", data.make("split"))
    data.make("split", b"other", folder="data/digits/splits/balanced")
    data.make("ingest", b"other", folder="data/photos/shards")
    assert data.problems() == {}


def test_a_split_that_is_gone_is_named_but_not_a_whole_output(data):
    folder = data.make("split")
    data.receipt("split", folder)
    data.receipt("ingest", data.make("ingest"))
    shutil.rmtree(data.root / "data/digits/shards")
    assert data.problems() == {}
    shutil.rmtree(folder)
    assert list(data.problems()) == [folder / "manifest.json"]
    folder.parent.rmdir()
    assert data.problems() == {}


def test_without_receipts_dvc_lock_is_asked(data):
    shards, split = data.make("ingest"), data.make("split")
    data.make("split", folder="data/digits/splits/balanced")
    data.lock(shards, split.parent)
    assert data.problems() == {}
    data.make("ingest", b"forged")
    (split / "manifest.json").unlink()
    named = data.problems()
    assert set(named) == {shards, split / "manifest.json"}
    assert all("dvc.lock" in sentence for sentence in named.values())


def test_a_split_without_a_receipt_is_accused_by_dvc_lock_but_not_for_its_neighbour(data):
    split, neighbour = data.make("split"), data.make("split", folder="data/digits/splits/balanced")
    data.receipt("split", split)
    data.lock(split.parent)
    data.make("split", b"forged")
    assert list(data.problems()) == [split / "manifest.json"]
    data.make("split")
    assert data.problems() == {}
    (neighbour / "0000/a.bin").write_bytes(b"eden")
    manifest.write(neighbour)
    assert list(data.problems()) == [split.parent]


def test_what_dvc_made_since_the_last_receipt_is_vouched_for_by_dvc_lock(data):
    data.receipt("ingest", data.make("ingest", b"first"))
    folder = data.make("ingest", b"second")
    assert list(data.problems()) == [folder / "manifest.json"]
    data.lock(folder)
    assert data.problems() == {}


@pytest.mark.parametrize("text", ["", "stages: [", "stages: 3", "stages: {a: 1}"])
def test_an_unreadable_dvc_lock_vouches_for_nothing_and_accuses_nothing(data, text):
    data.make("ingest")
    (data.root / "dvc.lock").write_text(text)
    assert data.problems() == {}


def test_an_altered_file_is_named_once(data):
    folder = data.make("ingest")
    data.receipt("ingest", folder)
    data.lock(folder)
    (folder / "0000/a.bin").write_bytes(b"eden")
    assert list(data.problems()) == [folder / "0000/a.bin"]
    data.lock(folder)
    assert list(data.problems()) == [folder / "0000/a.bin"]


def test_an_output_that_is_one_file_is_compared_with_dvc_lock(data):
    arrivals = data.root / "data/digits/arrivals.json"
    arrivals.parent.mkdir(parents=True)
    arrivals.write_text('{"slots": []}')
    out = {"path": "data/digits/arrivals.json", "hash": "md5", "md5": hashlib.md5(arrivals.read_bytes()).hexdigest()}
    lock = {"schema": "2.0", "stages": {"arrive@digits": {"cmd": "x", "outs": [out]}}}
    (data.root / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert data.problems() == {}
    arrivals.write_text('{"slots": [1]}')
    assert "not what dvc.lock records" in data.problems()[arrivals]
