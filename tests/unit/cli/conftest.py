import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vitops.cli.app import run
from vitops.lineage.ledger import Ledger
from vitops.lineage.receipts import statement
from vitops.store.artifacts import Store
from vitops.store.job import Outcome
from vitops.store.refs import Ref

ROOT = Path(__file__).parents[3]


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with this project's pipelines.yaml and an empty store."""
    shutil.copy(ROOT / "pipelines.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITOPS_HOME", raising=False)
    return tmp_path


@pytest.fixture
def vitops(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run one command line in this process."""

    def call(*arguments: str) -> Result:
        code = run(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def make(project: Path) -> Callable[..., Ref]:
    """Publish an artifact with a receipt, as the executor does."""

    def publish(stage: str, content: str, *, inputs: dict[str, str] | None = None, name: str = "a.txt") -> Ref:
        home = project / ".vitops"
        folder = project / f"out-{stage}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(content)
        store = Store(home)
        ref = store.publish(folder, kind="model")
        receipt = statement(
            kind="train", stage=stage, pipeline="quickstart", key="e" * 64, subject=ref,
            files=store.manifest(ref.digest), inputs=inputs or {}, parameters={}, code=None, environment={},
            outcome=Outcome(), started=0.0, seconds=1.0, who="me", host="here", seed=0, adopted=False,
        )  # fmt: skip
        Ledger(home).append(receipt)
        return ref

    return publish
