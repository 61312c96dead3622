"""Execute one stage: hit, or compute, publish and receipt.

Laws: the key is computed from the digests that the inputs really have and from the code as it was when the run began;
if that code is another on disk before or after the stage's work, nothing is published. So an artifact under a key was
made by the code of the key, whatever the process had imported by then. Of racing runs of a measured stage, which never
measure the same, the first receipt decides, and the others take its result as a hit.
"""

import getpass
import pkgutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vitops.errors import Interrupted, VitopsError
from vitops.lineage.ledger import Ledger
from vitops.lineage.receipts import statement
from vitops.plan.code.digest import CodeDigest, code_digest
from vitops.plan.key import declared_environment, stage_key
from vitops.plan.record import RunRecord
from vitops.plan.stages import Stage
from vitops.plan.turn import ALWAYS, Turn, local_turn, shared_turn
from vitops.store import durable
from vitops.store.artifacts import Store
from vitops.store.host import host_facts
from vitops.store.job import Job, Outcome
from vitops.store.manifest import FileEntry
from vitops.store.refs import Ref


@dataclass(frozen=True, eq=False)
class Place:
    """Where a run happens: the project, its store and the run's own folder."""

    root: Path
    store: Store
    ledger: Ledger
    record: RunRecord
    code: Mapping[str, CodeDigest]
    """Stage name -> its code as it was before the run imported any of it."""
    allow_environment_change: bool = False
    """As the request says."""

    @property
    def stop(self) -> Path:
        """Appears when the run should end with its work saved."""
        return self.record.folder / "stop"


@dataclass(frozen=True)
class Done:
    """What a stage came to."""

    ref: Ref
    hit: bool


def execute(place: Place, stage: Stage, inputs: Mapping[str, Ref]) -> Done:
    """Bring one stage of the model plane up to date.

    Raises VitopsError when the stage or its gate fails and Interrupted when the run was asked to stop.
    """
    if place.stop.exists():
        raise Interrupted(f"interrupted before stage {stage.name}; run the same command again to resume")
    digests = {role: ref.digest for role, ref in inputs.items()} | dict(stage.pinned)
    key = stage_key(stage, digests, place.code[stage.name])
    wait = _patience(place, stage)
    with recorded(place, stage, key=key), local_turn(place.store, key, wait=wait):
        return _hit(place, stage, key) or _in_turn(place, stage, key, inputs, wait=wait)


@contextmanager
def recorded(place: Place, stage: Stage, *, key: str | None = None) -> Iterator[None]:
    """Note that the stage runs, and how it ended if it did not end well."""
    place.record.update(stage.name, key=key, status="running")
    try:
        yield
    except Exception as error:
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        with suppress(OSError, VitopsError):  # a full disk must not hide the error that it caused
            place.record.update(stage.name, status=status)
        raise


def unchanged_code(place: Place, stage: Stage) -> None:
    """Refuse to go on with code that is not the code of the key. Raises VitopsError."""
    if code_digest(stage.roots, place.store.memo).digest != place.code[stage.name].digest:
        raise VitopsError(
            f"stage {stage.name}: its code changed since the run began, so nothing is published; run again"
        )


def _hit(place: Place, stage: Stage, key: str, *, turn: Turn | None = None) -> Done | None:
    """The result that is there already. ``turn``: the right to the key against other homes, where this run has it."""
    receipt = place.ledger.by_key(key)
    if receipt is None or not place.store.present(receipt.digest):
        return None
    _clear(place, key, turn)  # a kill right after the receipt left them
    place.record.update(stage.name, status="hit", digest=receipt.digest, seconds=0.0)
    return Done(Ref(kind=stage.kind, digest=receipt.digest), hit=True)


def _clear(place: Place, key: str, turn: Turn | None) -> None:
    """Remove the checkpoints of a finished stage.

    Another home may compute it again all the same, if it found the result altered: so those in the bucket go only
    within a turn, this run's own or one that is free at once.
    """
    place.store.drop_checkpoints(key)
    if turn is not None:
        place.store.drop_shared_checkpoints(key, check=turn.check_known)
    elif place.store.shared_leftovers(key):
        with suppress(VitopsError), shared_turn(place.store, key, wait=_not_now, lost=lambda: None) as free:
            place.store.drop_shared_checkpoints(key, check=free.check_known)


def _not_now() -> None:
    raise Interrupted("another run computes the stage")


def _in_turn(place: Place, stage: Stage, key: str, inputs: Mapping[str, Ref], *, wait: Callable[[], None]) -> Done:
    """Compute the stage, unless another home that shares the store did while this one waited for its turn."""
    with shared_turn(place.store, key, wait=wait, lost=lambda: _ask_to_stop(place)) as turn:
        since = place.ledger.end()
        return _hit(place, stage, key, turn=turn) or _compute(place, stage, key, inputs, turn=turn, since=since)


def _patience(place: Place, stage: Stage) -> Callable[[], None]:
    """What is done between two looks at a stage that another run computes."""

    def wait() -> None:
        if place.stop.exists():
            raise Interrupted(f"interrupted while another run computes stage {stage.name}; run the same command again")
        if place.record.stages[stage.name]["status"] != "waiting":
            place.record.update(stage.name, status="waiting")

    return wait


def _ask_to_stop(place: Place) -> None:
    with suppress(VitopsError):  # on a full disk the work goes on, only to be refused at its end
        durable.write_bytes(place.stop, b"", sync=False)


def _compute(place: Place, stage: Stage, key: str, inputs: Mapping[str, Ref], *, turn: Turn, since: int) -> Done:
    unchanged_code(place, stage)
    place.record.update(stage.name, status="running")
    started, clock = time.time(), time.monotonic()
    with place.store.workspace() as out:
        job = _job(place, stage, key, inputs, out)
        with durable.actionable(out), _named_loss(turn):
            outcome = _function(stage)(job)
        unchanged_code(place, stage)
        turn.check()
        ref = place.store.publish(out, stage.kind)
    turn.check()
    before = place.ledger.by_key(key)
    seconds = round(time.monotonic() - clock, 3)
    write_receipt(
        place,
        stage,
        Made(key=key, ref=ref, files=place.store.manifest(ref.digest), inputs=job.digests),
        outcome=outcome,
        started=started,
        seconds=seconds,
        since=since,
        turn=turn,
    )
    measured = stage.exactness == "measured"
    if measured and (latest := place.ledger.by_key(key)) is not None and latest.digest != ref.digest:
        return _second(place, stage, key, ref, turn=turn)
    if measured and before is not None and before.sequence < since and before.digest != ref.digest:
        _forget(place, key, before.digest)
    _clear(place, key, turn)
    resumed = outcome.model_dump(include={"resumed_from", "work_lost"})
    resumed |= {name: told for name, told in outcome.facts.items() if name == "teacher_cache"}
    place.record.update(stage.name, status="executed", digest=ref.digest, seconds=seconds, **resumed)
    return Done(ref, hit=False)


def _second(place: Place, stage: Stage, key: str, ref: Ref, *, turn: Turn) -> Done:
    """The result of a racing run, which has the receipt; this run's own goes. Raises VitopsError if that is lost."""
    _forget(place, key, ref.digest)
    if (done := _hit(place, stage, key, turn=turn)) is None:
        raise VitopsError(f"another run measured stage {stage.name} first, but its result is damaged since: run again")
    return done


@contextmanager
def _named_loss(turn: Turn) -> Iterator[None]:
    """Work that stopped because its turn was lost says so; a run that was asked to stop waits for no server here."""
    try:
        yield
    except Interrupted:
        turn.check_known()
        raise


@dataclass(frozen=True)
class Made:
    """What a receipt is about: an output, and the ingredients of the key it was made under."""

    key: str
    ref: Ref
    files: list[FileEntry]
    inputs: Mapping[str, str]


def write_receipt(
    place: Place,
    stage: Stage,
    made: Made,
    *,
    outcome: Outcome,
    started: float,
    seconds: float,
    since: int,
    turn: Turn = ALWAYS,
    adopted: bool = False,
) -> None:
    """Append the receipt of one execution, or of an output that was ``adopted`` as it was found.

    ``since``: the ledger's end before the work began; a receipt that a racing run has appended since is not repeated,
    nor contradicted where the stage is measured.
    """
    place.ledger.append(
        statement(
            kind=stage.kind,
            stage=stage.name,
            pipeline=place.record.pipeline,
            key=made.key,
            subject=made.ref,
            files=made.files,
            inputs=made.inputs,
            parameters=stage.parameters,
            code=place.code[stage.name],
            environment={"declared": declared_environment(stage), "host": host_facts()},
            outcome=outcome,
            started=started,
            seconds=seconds,
            who=getpass.getuser(),
            host=socket.gethostname(),
            seed=stage.parameters.get("seed"),
            adopted=adopted,
            configuration=place.record.configuration,
        ),
        since=since,
        first_decides=stage.exactness == "measured",
        check=turn.check,
    )


def _forget(place: Place, key: str, digest: str) -> None:
    """Discard a measured artifact of that key that was altered or came second: no run makes its bytes again."""
    latest = place.ledger.by_digest(digest)
    if latest is None or latest.key == key:
        place.store.discard(digest)


def _job(place: Place, stage: Stage, key: str, inputs: Mapping[str, Ref], out: Path) -> Job:
    digests = {role: ref.digest for role, ref in inputs.items()} | dict(stage.pinned)
    folders = {role: _folder(place, ref) for role, ref in inputs.items()}
    folders |= {role: place.store.materialize(digest) for role, digest in stage.pinned.items()}
    if stage.exactness == "measured":
        folders["run"] = place.record.folder
    return Job(
        stage=stage.name,
        key=key,
        parameters=stage.parameters,
        inputs=folders,
        digests=digests,
        file=None if stage.file is None else place.root / stage.file,
        out=out,
        checkpoints=place.store.checkpoints(key),
        shared_checkpoints=place.store.shared_checkpoints(key),
        caches=place.store.cache,
        progress=place.record.folder / "progress.json",
        stop=place.stop,
        resources=stage.resources,
        allow_environment_change=place.allow_environment_change,
    )


def _folder(place: Place, ref: Ref) -> Path:
    """Data-plane outputs stay where DVC keeps them; everything else comes from the store."""
    path = ref.metadata.get("path")
    return place.root / path if path else place.store.materialize(ref.digest)


def _function(stage: Stage) -> Callable[[Job], Outcome]:
    function: Callable[[Job], Outcome] = pkgutil.resolve_name(stage.roots[0])
    return function
