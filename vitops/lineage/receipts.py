"""Receipts: what was made, from what, by which code, where and when, as in-toto Statements (version 1).

Laws: the subjects are the artifact's files; the predicate holds only what was handed in (no environment variable is
ever read); a ``Receipt`` is a checked view of a statement, so its properties always answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from vitops.store.job import Outcome
from vitops.store.manifest import HEX64, FileEntry
from vitops.store.refs import Ref

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://vitops.dev/receipt/v1"
DATA_KINDS = frozenset({"ingest", "validate", "split"})
"""Kinds of the data plane: their bytes lie where DVC keeps them, not among the store's objects."""

JSON = dict[str, Any]


class Code(Protocol):
    """What a code digest must tell: itself, and the digest of each definition it covers."""

    @property
    def digest(self) -> str: ...
    @property
    def definitions(self) -> Mapping[str, str]: ...


class CodeRecord(BaseModel):
    """Digest of the code that ran, and of each definition it covers (dotted name -> digest)."""

    digest: str
    definitions: dict[str, str]


class When(BaseModel):
    """Start (ISO 8601, UTC) and duration."""

    started: str
    seconds: float


class Predicate(BaseModel):
    """Everything a receipt says beside the digests of the artifact's files; unknown fields of later releases pass."""

    model_config = ConfigDict(strict=True)

    artifact: Ref
    stage: str
    kind: str
    pipeline: str
    key: str | None
    inputs: dict[str, str]
    parameters: JSON
    code: CodeRecord | None
    environment: JSON
    seeds: list[int]
    outcome: Outcome
    when: When
    who: str
    host: str
    adopted: bool
    configuration: JSON | None = None
    """The resolved ``datasets`` and ``pipelines`` sections of the run that made it: enough to execute it again."""


def statement(
    *,
    kind: str,
    stage: str,
    pipeline: str,
    key: str | None,
    subject: Ref,
    files: Iterable[FileEntry],
    inputs: Mapping[str, str],
    parameters: Mapping[str, Any],
    code: Code | None,
    environment: Mapping[str, Any],
    outcome: Outcome,
    started: float,
    seconds: float,
    who: str,
    host: str,
    seed: int | None,
    adopted: bool,
    configuration: JSON | None = None,
) -> JSON:
    """The statement for one execution.

    ``inputs``: role -> artifact digest (for an ingest: ``source`` -> SHA-256 of what was read); ``started``: seconds
    since the epoch; ``adopted``: written from records found on disk, not from an execution of ours;
    ``configuration``: the resolved sections of the run, see ``plan.recorded``.
    """
    record = None if code is None else CodeRecord(digest=code.digest, definitions=dict(code.definitions))
    predicate = Predicate(
        artifact=subject,
        stage=stage,
        kind=kind,
        pipeline=pipeline,
        key=key,
        inputs=dict(inputs),
        parameters=dict(parameters),
        code=record,
        environment=dict(environment),
        seeds=[] if seed is None else [seed],
        outcome=outcome,
        when=When(started=datetime.fromtimestamp(started, UTC).isoformat(), seconds=seconds),
        who=who,
        host=host,
        adopted=adopted,
        configuration=configuration,
    )
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": entry.path, "digest": {"sha256": entry.sha256}} for entry in sorted(files)],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate.model_dump(mode="json"),
    }


@dataclass(frozen=True)
class Receipt:
    """One statement of the ledger with its sequence number, as ``receipt`` checked it."""

    sequence: int
    statement: JSON
    predicate: Predicate

    @property
    def ref(self) -> Ref:
        """The reference to the artifact it is about."""
        return self.predicate.artifact

    @property
    def digest(self) -> str:
        """Digest of the artifact it is about."""
        return self.predicate.artifact.digest

    @property
    def files(self) -> dict[str, str]:
        """Path -> SHA-256 of the artifact's files."""
        return {item["name"]: item["digest"]["sha256"] for item in self.statement["subject"]}

    @property
    def key(self) -> str | None:
        """Stage key, if the stage has one."""
        return self.predicate.key

    @property
    def stage(self) -> str:
        """Name of the stage."""
        return self.predicate.stage

    @property
    def kind(self) -> str:
        """Kind of the stage."""
        return self.predicate.kind

    @property
    def pipeline(self) -> str:
        """Name of the pipeline that ran it."""
        return self.predicate.pipeline

    @property
    def inputs(self) -> dict[str, str]:
        """Role -> digest of each input."""
        return self.predicate.inputs

    @property
    def parameters(self) -> JSON:
        """Resolved parameters."""
        return self.predicate.parameters

    @property
    def code(self) -> CodeRecord | None:
        """Code digest and the definitions it covers; None for code that is not ours."""
        return self.predicate.code

    @property
    def seconds(self) -> float:
        """How long the execution took."""
        return self.predicate.when.seconds

    @property
    def adopted(self) -> bool:
        """Whether it was written from records found on disk instead of an execution."""
        return self.predicate.adopted

    @property
    def configuration(self) -> JSON | None:
        """The resolved sections of the run that made it; None in receipts of releases that did not record it."""
        return self.predicate.configuration


def receipt(sequence: int, statement: JSON) -> Receipt:
    """The checked view of a statement. Raises ValueError if it is no receipt."""
    try:
        view = Receipt(sequence, statement, Predicate(**statement["predicate"]))
        known = (statement["_type"], statement["predicateType"]) == (STATEMENT_TYPE, PREDICATE_TYPE)
        if not known or not all(HEX64.fullmatch(sha256) for sha256 in view.files.values()):
            raise ValueError("its type is unknown or a subject has no SHA-256")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks what every receipt has: {error}") from error
    return view
