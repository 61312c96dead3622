"""``vitops run PIPELINE``: hits stay, everything else is executed or resumed, and the outcome is summed up."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitops.cli.console import complain, emit
from vitops.cli.options import (
    AllowEnvironmentChange,
    AsJson,
    File,
    Overrides,
    PipelineName,
    Profile,
    Until,
    Workers,
    request,
)
from vitops.cli.tables import figure_table, stage_table
from vitops.plan.opening import Opened, open_project
from vitops.plan.record import new_run_id, read_record
from vitops.plan.request import RunRequest
from vitops.plan.summary import accuracy_table, with_latency

if TYPE_CHECKING:
    from rich.console import Console

JSON = dict[str, Any]
FIELDS = ("name", "kind", "exactness", "key", "status", "digest", "seconds", "resumed_from", "work_lost")


def run(
    name: PipelineName,
    file: File = None,
    profile: Profile = None,
    overrides: Overrides = None,
    until: Until = None,
    workers: Workers = None,
    allow_environment_change: AllowEnvironmentChange = False,
    as_json: AsJson = False,
) -> int:
    """Run a pipeline. Exit 0 when all is done, 1 if a stage or gate failed, 75 if interrupted and resumable."""
    asked = request(
        Path.cwd(),
        name,
        file=file,
        profile=profile,
        overrides=overrides,
        until=until,
        workers=workers,
        allow_environment_change=allow_environment_change,
    )
    return carry_out(asked, as_json=as_json)


def carry_out(asked: RunRequest, *, as_json: bool) -> int:
    """Run what is asked for, print the outcome and return the exit code."""
    opened = open_project(asked)
    found = opened.plan()
    for note in opened.check_weights(found):
        complain(note)
    planned = [stage.to_json() for stage in found]
    code, error, stages = 0, None, _hits(opened, planned)
    if stages is None:
        code, error, stages = _execute(opened)
    document = {"pipeline": asked.pipeline, "stages": stages, **_results(opened, stages)}
    emit(document, as_json=as_json, render=lambda console: _render(opened, document, console))
    if error is not None:
        complain(error)
    return code


def _hits(opened: Opened, planned: list[JSON]) -> list[JSON] | None:
    """The outcome of a run in which nothing has to be done, not even a receipt to be written; or None."""
    if any(stage["status"] != "hit" or opened.ledger.by_key(stage["key"]) is None for stage in planned):
        return None
    return [_fields({**stage, "seconds": 0.0, "resumed_from": None, "work_lost": None}) for stage in planned]


def _execute(opened: Opened) -> tuple[int, str | None, list[JSON]]:
    """Supervise the flow; stages that it did not come to are left out."""
    from vitops.cli.family import end_leftovers
    from vitops.cli.progress import Progress
    from vitops.cli.supervise import supervise

    end_leftovers(opened.store.runs)
    identity = new_run_id()
    folder = opened.store.runs / identity
    folder.mkdir(parents=True)
    asked = opened.request.model_copy(update={"run_id": identity, "home": opened.store.home})
    with Progress(folder) as progress:
        code, error = supervise(asked, folder, tick=progress.tick)
    record = read_record(folder / "run.json")
    stages = record["stages"] if record else []
    return code, error, [_fields(stage) for stage in stages if stage["status"] in {"hit", "executed", "failed"}]


def _fields(stage: JSON) -> JSON:
    return {field: stage[field] for field in FIELDS}


def _results(opened: Opened, stages: list[JSON]) -> JSON:
    """``package`` and ``report`` of the document, null where the run did not come to them."""
    digests = {stage["name"]: stage["digest"] for stage in stages if stage["status"] != "failed"}
    package, report = digests.get("package"), digests.get("report")
    return {
        "package": {"digest": package, "path": str(opened.store.materialize(package))} if package else None,
        "report": str(opened.store.materialize(report) / "report.html") if report else None,
    }


def _render(opened: Opened, document: JSON, console: "Console") -> None:
    stages = document["stages"]
    if stages:
        console.print(stage_table(stages, ("name", "status", "seconds", "resumed_from", "work_lost", "digest")))
    done = {stage["name"]: stage["digest"] for stage in stages if stage["status"] != "failed"}
    if "evaluate" in done:
        rows = accuracy_table(opened.store.materialize(done["evaluate"]))
        if "report" in done:
            rows = with_latency(rows, opened.store.materialize(done["report"]))
        console.print()
        console.print(figure_table(rows))
    for name, value in (("package", (document["package"] or {}).get("path")), ("report", document["report"])):
        if value:
            console.print(f"\n{name}: {value}", soft_wrap=True)
