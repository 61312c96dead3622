"""``vitops reproduce RUN_OR_PACKAGE``: execute what is on record again, with nothing reused, and compare."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from vitops.cli.artifact import latest
from vitops.cli.console import emit
from vitops.cli.options import AsJson
from vitops.cli.tables import stage_table
from vitops.config.load import find_root, store_home
from vitops.errors import UsageError, VerificationError, VitopsError
from vitops.lineage.ledger import Ledger
from vitops.lineage.shared_ledger import open_ledger
from vitops.packaging.text import printable
from vitops.plan import recorded
from vitops.plan.recorded import Recorded
from vitops.plan.reproduce import Row, obstacles, remarks, scratch, unexecuted
from vitops.plan.reproduce import reproduce as execute_again
from vitops.store import manifest
from vitops.store.artifacts import Store
from vitops.store.shared import open_store

if TYPE_CHECKING:
    from rich.console import Console

JSON = dict[str, Any]
COLUMNS = ("name", "status", "seconds", "recorded", "found", "reason")


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_PACKAGE",
            help="A run's name, a package's folder, first digits of an artifact's digest, or PIPELINE/STAGE.",
        ),
    ],
    as_json: AsJson = False,
) -> int:
    """Execute a run, or an artifact and all before it, again from its receipts; exit 3 unless every byte is the same.

    Code, libraries or source bytes that are not the recorded ones are named, and then nothing is executed.
    """
    if not name.strip():
        raise UsageError(
            "the name is empty: reproduce takes a run's name, a package's folder, the first digits of an artifact's "
            "digest, or PIPELINE/STAGE; `vitops ls` lists artifacts"
        )
    root = find_root(Path.cwd())
    home = store_home(root)
    store = open_store(home)
    ledger = open_ledger(home, store.shared)
    old = _on_record(store, ledger, name)
    found = obstacles(root, store, old)
    rows = unexecuted(old, found) if found else _again(root, store, old)
    same = all(row.status in {"equal", "given"} for row in rows)
    document = {
        "reproduced": same,
        "pipeline": old.pipeline,
        "changes": {stage: [change.to_json() for change in changes] for stage, changes in found.items()},
        "remarks": remarks(old),
        "stages": [row.to_json() for row in rows],
    }
    emit(document, as_json=as_json, render=lambda console: _render(document, console))
    return 0 if same else VerificationError.exit_code


def _on_record(store: Store, ledger: Ledger, name: str) -> Recorded:
    if (store.runs / name / "run.json").is_file():
        return recorded.of_run(store, ledger, name)
    if Path(name).is_dir():
        digest = _digest_of(Path(name))
    else:
        digest = latest(ledger, name).digest if "/" in name else ledger.find(name)
    return recorded.of_artifact(store, ledger, digest)


def _digest_of(folder: Path) -> str:
    try:
        return manifest.digest(manifest.scan_all(folder))
    except VitopsError as error:
        raise UsageError(f"{folder} is no folder of a package: {error}") from error


def _again(root: Path, store: Store, old: Recorded) -> list[Row]:
    from vitops.training import launch

    resources = old.project.pipelines[old.pipeline].resources
    with scratch(root, store, old) as place, _aside(place.record.folder / "log.txt") as stderr:

        def say(row: Row) -> None:
            seconds = "" if row.seconds is None else f" in {row.seconds:.1f} s"
            stderr.write(f"{row.name}: {row.status}{seconds}\n")
            stderr.flush()

        spread = resources.mode == "fast" and resources.launcher == "ray"
        with place.store.workspace() as folder, launch.cluster(resources, folder) if spread else nullcontext():
            return execute_again(place, store, old, say=say)


@contextmanager
def _aside(log: Path) -> Iterator[IO[str]]:
    """What libraries print in the block goes into ``log``; yields a stream to the real stderr."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with log.open("ab") as stream, os.fdopen(os.dup(2), "w") as stderr:
        try:
            for number in (1, 2):
                os.dup2(stream.fileno(), number)
            yield stderr
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)


def _render(document: JSON, console: "Console") -> None:
    console.print(stage_table(document["stages"], COLUMNS))
    for remark in document["remarks"]:
        console.print(printable(f"remark: {remark}"), soft_wrap=True)
    verdict = "every exact stage has the recorded bytes" if document["reproduced"] else "not reproduced"
    if document["changes"]:
        verdict += ": nothing was executed, for what would be is not what is on record; check out the code, the "
        verdict += "libraries and the source that made it"
    console.print(verdict, soft_wrap=True)
