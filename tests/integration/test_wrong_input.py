"""What a user gets wrong is one paragraph with file, line, key or path, an exit code, and a store that verifies."""

import contextlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from project import TINY, Project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("wrong"))


def said(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The one paragraph of a command that had to fail with ``code``; lines of progress may stand before it."""
    assert done.returncode == code, done.stderr
    *progress, paragraph = done.stderr.splitlines()
    assert not [line for line in progress if "rror" in line or "Traceback" in line], done.stderr
    return paragraph


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "  quickstart:\n    flow: retrain",
            "  quickstart:\n    flow: retrain\n    taecher: 1",
            ("taecher", "teacher"),
        ),
        ("    dataset: digits\n    split: longtail", "    dataset: digit\n    split: longtail", ("digit", "digits")),
        ("      epochs: 12", "      epochs: twelve", ("epochs", "whole number")),
        ("      epochs: 12", "      epochs: 12\n      epochs: 13", ("epochs", "twice")),
    ],
    ids=["unknown key", "unknown dataset", "wrong type", "duplicate key"],
)
def test_a_mistake_in_pipelines_yaml_is_named_with_file_line_and_key(project, old, new, words):
    file = project.folder / "pipelines.yaml"
    text = file.read_text()
    assert old in text
    wrong = text.replace(old, new, 1)
    pairs = zip(text.splitlines(), wrong.splitlines(), strict=False)
    line = next(number for number, (right, now) in enumerate(pairs, 1) if right != now)
    file.write_text(wrong)
    try:
        done = project.vitops("plan", "quickstart")
    finally:
        file.write_text(text)
    paragraph = said(done, 2)
    assert done.stderr == paragraph + "\n"
    assert paragraph.startswith(f"pipelines.yaml:{line}:")
    assert all(word in paragraph for word in words), paragraph


def test_a_missing_archive_is_named_with_the_place_it_belongs(project):
    paragraph = said(project.vitops("run", "cifar10-lt", "--until", "split"), 2)
    assert "data/raw/cifar10.tar" in paragraph


def test_a_model_that_cannot_be_built_is_named_before_any_stage_begins(project):
    command = ("run", "quickstart", "--set", "student.model.name=deit_tiny_distiled_patch16_224")
    paragraph = said(project.vitops(*command), 2)
    assert "student" in paragraph and "deit_tiny_distilled_patch16_224" in paragraph
    assert not (project.folder / "data/digits/shards").exists()


def test_a_truncated_jpeg_and_an_empty_class_stop_the_run_by_name(tmp_path):
    project = Project(tmp_path)
    _own_pictures(project)
    archive = project.folder / "data/raw/own.tar"
    _write_archive(archive, truncated=("cat", 3))
    paragraph = said(project.vitops("run", "quickstart", "--set", "dataset=own", "--until", "split"), 1)
    assert "cat/3.jpg" in paragraph
    _write_archive(archive, empty="cow")
    paragraph = said(project.vitops("run", "quickstart", "--set", "dataset=own", "--until", "split"), 1)
    assert "cow" in paragraph
    _write_archive(archive)
    assert project.vitops("run", "quickstart", "--set", "dataset=own", "--until", "split").returncode == 0
    assert project.vitops("verify").returncode == 0


def test_a_full_disk_is_named_and_room_is_all_it_takes_to_go_on(road, tmp_path):
    project = road.begun.copy(tmp_path / "project")
    store = tmp_path / "store"
    with _small_disk(store, "64m") as resize:
        shutil.copytree(project.folder / ".vitops", store, dirs_exist_ok=True)
        used = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
        resize(used + (1 << 20))
        command = ("run", "tiny", "--file", str(TINY), "--until", "student")
        paragraph = said(project.vitops(*command, VITOPS_HOME=str(store)), 1)
        assert "no space is left on its file system" in paragraph
        assert project.vitops("verify", VITOPS_HOME=str(store)).returncode == 0
        resize(64 << 20)
        assert project.vitops(*command, VITOPS_HOME=str(store)).returncode == 0


@contextlib.contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[Callable[[int], None]]:
    """A disk of its own under ``folder``; yields a function that changes its size in bytes."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root; tests/unit/lineage/test_store_faults.py goes without")
    _mount(folder, f"size={size}")
    try:
        yield lambda size: _mount(folder, f"remount,size={size}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def _own_pictures(project: Project) -> None:
    """A dataset ``own`` of the archive data/raw/own.tar."""
    file = project.folder / "pipelines.yaml"
    own = """
  own:
    source: {kind: archive, path: data/raw/own.tar}
    splits: {longtail: {kind: longtail, imbalance_factor: 2, test: {kind: per_class, count: 2}, val_per_class: 2}}

pipelines:
"""
    file.write_text(file.read_text().replace("\npipelines:\n", own, 1))


def _write_archive(path: Path, *, truncated: tuple[str, int] | None = None, empty: str | None = None) -> None:
    pictures = path.parent / "own"
    with tarfile.open(path, "w") as archive:
        for label, name in enumerate(("cat", "cow", "dog")):
            (pictures / name).mkdir(parents=True, exist_ok=True)
            archive.add(pictures / name, arcname=f"own/{name}", recursive=False)
            for number in range(12) if name != empty else ():
                file = pictures / name / f"{number}.jpg"
                Image.new("RGB", (32, 32), (80 * label, 20 * number, 7 * number)).save(file)
                if truncated == (name, number):
                    file.write_bytes(file.read_bytes()[:-300])
                archive.add(file, arcname=f"own/{name}/{number}.jpg")
