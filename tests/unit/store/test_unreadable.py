"""What lies on a bad sector: a miss, a finding, or a checkpoint that is passed over, and never a traceback."""

import errno

import pytest
import torch
from bad_sector import bad_sector

from vitops.errors import VerificationError, VitopsError
from vitops.lineage.verify import verify
from vitops.store.artifacts import Store
from vitops.store.job import Position
from vitops.training.checkpoint import Checkpoints, Saved


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_bytes(b"first")
    (tmp_path / "out/b").write_bytes(b"second")
    return tmp_path / "out"


@pytest.fixture
def digest(store, out):
    return store.publish(out, "train").digest


def places(store, digest):
    """Where its manifest and its first file lie."""
    return {"manifest": store.place(digest), "blob": store.blob(store.manifest(digest)[0].sha256)}


@pytest.mark.parametrize("what", ["manifest", "blob"])
def test_an_artifact_that_cannot_be_read_is_a_miss_and_publishing_heals_it(what, store, out, digest):
    path = places(store, digest)[what]
    before = path.stat().st_ino
    with bad_sector(path):
        assert not store.present(digest)
        for use in (store.materialize, lambda one: store.read(one, "a")):
            with pytest.raises(VerificationError, match=f"^cannot read {path}: Input/output error.*a run makes"):
                use(digest)
        store.publish(out, "train")
    assert path.stat().st_ino != before  # another file, on other sectors
    assert store.present(digest)


@pytest.mark.parametrize("what", ["manifest", "blob"])
def test_a_file_without_the_right_to_read_it_is_no_damage_but_named(what, store, digest):
    path = places(store, digest)[what]
    with bad_sector(path, errno.EACCES), pytest.raises(VitopsError, match=f"^cannot read {path}: Perm") as raised:
        store.present(digest)
    assert not isinstance(raised.value, VerificationError)


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("what", ["manifest", "blob"])
def test_verify_names_what_cannot_be_read_and_goes_on(what, code, store, digest):
    path, other = places(store, digest)[what], store.blob(store.manifest(digest)[1].sha256)
    other.chmod(0o644)
    other.write_bytes(b"changed")
    with bad_sector(path, code):
        found = {problem.path: problem.sentence for problem in verify(store.home, None)}
    assert f"cannot read {path}" in found[path]
    assert "altered" in found[other]


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
def test_a_checkpoint_that_cannot_be_read_is_passed_over_and_told(name, tmp_path):
    points = Checkpoints(tmp_path)
    for step in (1, 2):
        points.save(Position(epoch=0, step=step), Saved({"x": torch.ones(5) * step}, {"step": step}))
    (bad,) = tmp_path.glob("e*-s000000002-*")
    with bad_sector(bad / name):
        saved, told = Checkpoints(tmp_path).newest()
    assert saved is not None
    assert saved.record == {"step": 1}
    assert len(told) == 1
    assert f"cannot read {bad / name}" in told[0]


def test_a_checkpoint_without_the_right_to_read_it_stays(tmp_path):
    points = Checkpoints(tmp_path)
    points.save(Position(epoch=0, step=1), Saved({"x": torch.ones(5)}, {}))
    (folder,) = tmp_path.glob("e*-s000000001-*")
    with bad_sector(folder / "state.json", errno.EACCES), pytest.raises(VitopsError, match="right to read"):
        Checkpoints(tmp_path).newest()
    assert folder.is_dir()
