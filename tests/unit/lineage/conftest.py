"""A store with a small, real lineage: source -> ingest -> teacher -> student -> package."""

from dataclasses import dataclass, field

import pytest

from vitops.lineage.ledger import Ledger
from vitops.lineage.receipts import statement
from vitops.store.artifacts import Store
from vitops.store.job import Outcome
from vitops.store.manifest import FileEntry
from vitops.store.refs import Ref

SOURCE = "5" * 64


@dataclass
class Code:
    digest: str = "c" * 64
    definitions: dict[str, str] = field(default_factory=lambda: {"module:function": "d" * 64})


def make_statement(ref, files, *, stage="student", kind="train", key="a" * 64, inputs=None, **changes):
    values = {
        "kind": kind,
        "stage": stage,
        "pipeline": "quickstart",
        "key": key,
        "subject": ref,
        "files": files,
        "inputs": inputs or {},
        "parameters": {"seed": 7},
        "code": Code(),
        "environment": {"declared": {"torch": "2"}, "host": {"machine": "x86_64"}},
        "outcome": Outcome(),
        "started": 0.0,
        "seconds": 1.5,
        "who": "ada",
        "host": "analytical",
        "seed": 7,
        "adopted": False,
    }
    return statement(**(values | changes))


def small_statement(key="a" * 64, digest="e" * 64, **changes):
    """A receipt about an output of the data plane, which the store need not hold."""
    ref = Ref(kind="split", digest=digest)
    return make_statement(ref, [FileEntry("f", 1, "f" * 64)], key=key, stage="split", kind="split", **changes)


@dataclass
class Lineage:
    store: Store
    ledger: Ledger
    digests: dict[str, str] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)

    def make(self, tmp_path, stage, kind, inputs, weights=None):
        """Publish an artifact with two files and append its receipt."""
        out = tmp_path / "out" / stage
        (out / "sub").mkdir(parents=True, exist_ok=True)
        (out / "weights").write_bytes(weights or stage.encode() * 500)
        (out / "sub/model.json").write_text(f'"{stage}"\n')
        ref = self.store.publish(out, kind)
        files = self.store.manifest(ref.digest)
        key = stage.encode().hex().ljust(64, "0")
        self.sequences[stage] = self.ledger.append(
            make_statement(ref, files, stage=stage, kind=kind, key=key, inputs=inputs)
        )
        self.digests[stage] = ref.digest
        return ref


@pytest.fixture
def lineage(tmp_path):
    made = Lineage(Store(tmp_path / "home"), Ledger(tmp_path / "home"))
    data = Ref(kind="ingest", digest="1" * 64)
    files = [FileEntry("0000/000000.tar", 9, "9" * 64)]
    made.sequences["ingest"] = made.ledger.append(
        make_statement(data, files, stage="ingest", kind="ingest", key="1" * 64, inputs={"source": SOURCE})
    )
    made.digests["ingest"] = data.digest
    teacher = made.make(tmp_path, "teacher", "train", {"data": data.digest})
    student = made.make(tmp_path, "student", "train", {"data": data.digest, "teacher": teacher.digest})
    made.make(tmp_path, "package", "package", {"student": student.digest, "data": data.digest})
    return made


@pytest.fixture
def full_statement():
    """Makes receipts about artifacts as they are."""
    return make_statement


@pytest.fixture
def small():
    """Makes receipts about artifacts that need not exist."""
    return small_statement
