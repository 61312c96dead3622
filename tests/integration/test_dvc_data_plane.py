"""The data plane with real DVC: stock `dvc repro`, and what vitops makes of DVC's trust in its own bytes."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from vitops.data import versions
from vitops.errors import UsageError, VitopsError
from vitops.store import manifest
from vitops.store.stat_memo import StatMemo

REPOSITORY = Path(__file__).parents[2]
PHOTOS = """\
datasets:
  photos:
    source: {kind: folder, path: data/raw/photos}
    gates: {min_per_class: 3}
    splits: {whole: {kind: holdout, test: {kind: per_class, count: 2}, val_per_class: 2}}
pipelines: {}
"""


def environment(state: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(state)}


def call(root: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=root, env=environment(root / ".dvc/tmp/state"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bring(root: Path, dataset: str, split: str) -> dict[str, bool]:
    """Bring all stages up to date; stage -> whether it was executed."""
    return {stage: versions.bring(root, dataset, split, stage)[1] for stage in versions.STAGES}


def planned(root: Path, dataset: str, split: str) -> dict[str, str]:
    """Stage -> reason, for those that would run."""
    found = versions.status(root, dataset, split, StatMemo(root / ".vitops/cache"))
    return {stage: one.reason for stage, one in found.items() if not one.unchanged}


def flip(path: Path, offset: int = 700) -> None:
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 1]))


def picture(number: int) -> bytes:
    """An encoded image whose pixels follow from its number."""
    pixels = np.random.RandomState(number).randint(0, 256, (16, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A fresh clone in which stock DVC made the digits."""
    root = tmp_path_factory.mktemp("clone") / "project"
    call(REPOSITORY, "git", "clone", "-q", str(REPOSITORY), str(root))
    for name in ("dvc.yaml", "dvc.lock", "pipelines.yaml"):
        shutil.copy(REPOSITORY / name, root / name)
    call(root, "vitops", "data", "code", "--write")
    call(root, "dvc", "repro", "split@digits")
    return root


@pytest.fixture
def clone(made, tmp_path) -> Path:
    """A copy of it that a test may spoil."""
    root = Path(shutil.copytree(made, tmp_path / "project", symlinks=True))
    (root / ".vitops").mkdir()  # without a store nothing is remembered
    time.sleep(0.05)  # a stat record is trusted only some clock ticks after the last write
    return root


@pytest.fixture
def photos(tmp_path) -> Path:
    """A project of its own, outside git: two classes of six images."""
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", ".dvc/config", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root / name)
    (root / "pipelines.yaml").write_text(PHOTOS)
    for number in range(12):
        path = root / f"data/raw/photos/{('cat', 'dog')[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    call(root, "vitops", "data", "code", "--write")
    return root


def test_stock_dvc_in_a_fresh_clone_gives_the_committed_lock_to_the_byte(made):
    assert (made / "dvc.lock").read_bytes() == (REPOSITORY / "dvc.lock").read_bytes()


def test_what_stock_dvc_made_is_a_hit_that_is_then_answered_without_dvc(clone, monkeypatch):
    assert planned(clone, "digits", "longtail") == {}
    monkeypatch.setattr("vitops.data.dvc_process._run", lambda *_, **__: pytest.fail("DVC was asked"))
    assert planned(clone, "digits", "longtail") == {}
    assert bring(clone, "digits", "longtail") == {"ingest": False, "validate": False, "split": False}


def test_a_flipped_byte_in_the_workspace_is_planned_and_healed(clone):
    tar = clone / "data/digits/shards/0000/000000.tar"
    before = tar.read_bytes()
    flip(tar)
    assert "ingest" in planned(clone, "digits", "longtail")
    assert versions.bring(clone, "digits", "longtail", "ingest")[1]
    assert tar.read_bytes() == before
    assert planned(clone, "digits", "longtail") == {}


def test_missing_outputs_are_hits_that_are_restored_from_dvcs_cache(clone):
    digest = manifest.check(clone / "data/digits/splits/longtail")
    shutil.rmtree(clone / "data/digits/splits")
    assert planned(clone, "digits", "longtail") == {}
    assert versions.bring(clone, "digits", "longtail", "split") == (digest, False)
    assert manifest.check(clone / "data/digits/splits/longtail") == digest


def test_a_flipped_byte_in_the_cache_is_not_restored_but_made_again_in_both_places(clone):
    split = clone / "data/digits/splits/longtail"
    digest, train = manifest.check(split), (split / "train.parquet").read_bytes()
    objects = [
        path for path in (clone / ".dvc/cache/files").rglob("*") if path.is_file() and path.read_bytes() == train
    ]
    flip(*objects)
    shutil.rmtree(split.parent)
    assert planned(clone, "digits", "longtail") == {"split": "data/digits/splits is missing"}
    assert versions.bring(clone, "digits", "longtail", "split") == (digest, True)
    assert [path.read_bytes() for path in objects] == [train]


def test_a_changed_gate_runs_validate_and_leaves_ingest_alone(clone):
    written = (clone / "pipelines.yaml").read_text()
    (clone / "pipelines.yaml").write_text(written.replace("min_per_class: 170", "min_per_class: 171", 1))
    assert planned(clone, "digits", "longtail") == {"validate": "datasets.digits: gates.min_per_class changed"}
    split = manifest.check(clone / "data/digits/splits/longtail")
    ran = bring(clone, "digits", "longtail")
    assert (ran["ingest"], ran["validate"]) == (False, True)
    assert manifest.check(clone / "data/digits/splits/longtail") == split


def test_spelling_out_a_default_runs_nothing(clone):
    written = (clone / "pipelines.yaml").read_text()
    (clone / "pipelines.yaml").write_text(written.replace("  digits:\n", "  digits:\n    shard_size: 1000\n", 1))
    assert planned(clone, "digits", "longtail") == {}


def test_a_stage_refuses_to_run_with_a_stale_code_digest(clone):
    stages = clone / "data/stages.json"
    stages.write_text(stages.read_text().replace('"ingest": "', '"ingest": "0'))
    with pytest.raises(UsageError, match="vitops data code --write"):
        versions.bring(clone, "digits", "longtail", "ingest")


def test_a_project_outside_git_grows_by_arrivals(photos):
    assert versions.bring(photos, "photos", "whole", "ingest")[1]
    first = (photos / "data/photos/shards/0000/000000.tar").read_bytes()
    (photos / "data/raw/photos/cat/a.png").write_bytes(picture(100))
    assert "ingest" in planned(photos, "photos", "whole")
    assert versions.bring(photos, "photos", "whole", "ingest")[1]
    assert (photos / "data/photos/shards/0000/000000.tar").read_bytes() == first
    assert (photos / "data/photos/shards/0001/000000.tar").exists()


def test_a_truncated_image_stops_the_run_by_name_and_mending_it_goes_on(photos):
    broken = photos / "data/raw/photos/cat/0.png"
    broken.write_bytes(picture(0)[:-200])
    with pytest.raises(VitopsError, match=r"Decodable .*: 1 sample: [0-9a-f]{20} \(cat/0\.png: ") as caught:
        bring(photos, "photos", "whole")
    assert caught.value.exit_code == 1
    broken.write_bytes(picture(0))
    assert bring(photos, "photos", "whole") == {"ingest": True, "validate": True, "split": True}


def test_a_missing_source_and_an_empty_class_are_named(photos):
    (photos / "data/raw/photos/cow").mkdir()
    with pytest.raises(VitopsError, match="class folder cow holds no image"):
        versions.bring(photos, "photos", "whole", "ingest")
    (photos / "data/raw/photos").rename(photos / "data/raw/elsewhere")
    with pytest.raises(UsageError, match=r"datasets\.photos\.source\.path names data/raw/photos"):
        versions.bring(photos, "photos", "whole", "ingest")


def test_killing_the_run_leaves_no_process_and_the_next_run_finishes(photos):
    code = (
        "import pathlib, sys; from vitops.data import versions as v; v.bring(pathlib.Path(sys.argv[1]), *sys.argv[2:])"
    )
    runner = subprocess.Popen([sys.executable, "-c", code, str(photos), "photos", "whole", "ingest"])
    try:
        family = wait_for_stage(psutil.Process(runner.pid))
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert versions.bring(photos, "photos", "whole", "ingest")[1]


def test_what_a_killed_dvc_left_half_written_stops_no_run(photos):
    bring(photos, "photos", "whole")
    lock = (photos / "dvc.lock").read_bytes()
    (photos / ".dvc/tmp/rwlock").write_bytes(b"")
    (photos / ".dvc/tmp/dvc.lock.before").write_bytes(lock)
    (photos / "dvc.lock").write_bytes(lock[: len(lock) // 2])
    (photos / "data/photos/shards/dataset.json").unlink()
    assert bring(photos, "photos", "whole") == {"ingest": True, "validate": False, "split": False}
    assert (photos / "dvc.lock").read_bytes() == lock


def wait_for_stage(process: psutil.Process) -> list[psutil.Process]:
    """All descendants, once a data stage is among them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        family = process.children(recursive=True)
        if any(is_stage(one) for one in family):
            return family
        time.sleep(0.02)
    pytest.fail("no data stage was started")


def is_stage(process: psutil.Process) -> bool:
    return "data" in arguments(process) and any(part.endswith("vitops") for part in arguments(process))


def arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
