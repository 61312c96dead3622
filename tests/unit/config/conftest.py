from collections.abc import Callable
from pathlib import Path

import pytest

from vitops.config.load import Loaded, load

TEXT = """\
datasets:
  digits:
    source: {kind: arrays, path: data/raw/digits.npz}
    shard_size: 500
    splits:
      longtail: {kind: longtail, imbalance_factor: 5}
pipelines:
  first:
    flow: retrain
    dataset: digits
    split: longtail
    teacher: &teacher
      model: {kind: cifar_resnet, depth: 8}
      objective: {kind: ldam, drw: {epoch: 2}}
      epochs: 3
      micro_batch_size: 16
      preprocessing: {size: 32}
      optimizer: {name: sgd, lr: 0.1}
      sam: {rho: 0.05}
    student:
      model: {kind: timm, name: deit_tiny_distilled_patch16_224, args: {depth: 2}}
      objective:
        kind: deit_lt
        alpha: 0.5
      epochs: 4
      micro_batch_size: 16
      preprocessing: {size: 32}
      optimizer: {name: adamw, lr: 0.001}
    prune:
      finetune:
        objective: {kind: nvit}
        epochs: 2
        micro_batch_size: 16
        preprocessing: {size: 32}
        optimizer: {name: adamw, lr: 0.001}
    profiles:
      quick: {student: {epochs: 2}}
      paper:
        student:
          epochs: 1200
          objective: {kind: cross_entropy}
"""


class Project:
    """A folder with a pipelines.yaml that tests change by replacing text."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.text = TEXT
        self.write()

    def write(self, old: str = "", new: str = "") -> "Project":
        assert self.text.count(old) == 1 or not old, f"{old!r} must stand once"
        self.text = self.text.replace(old, new) if old else self.text
        (self.root / "pipelines.yaml").write_text(self.text)
        return self

    def line(self, part: str) -> int:
        return next(number for number, line in enumerate(self.text.splitlines(), 1) if part in line)

    def load(self, *overrides: str, profile: str | None = None, file: Path | None = None) -> Loaded:
        return load(self.root, file=file, profile=profile, overrides=overrides)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def refused() -> Callable[..., str]:
    """Run a call that must raise UsageError and return its message."""
    from vitops.errors import UsageError

    def call(function: Callable[..., object], *args: object, **kwargs: object) -> str:
        with pytest.raises(UsageError) as caught:
            function(*args, **kwargs)
        return str(caught.value)

    return call
