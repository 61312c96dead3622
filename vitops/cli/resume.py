"""``vitops resume [RUN]``: list the interrupted runs, or go on with one as it was asked for."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitops.cli.console import emit
from vitops.cli.options import AllowEnvironmentChange, AsJson
from vitops.cli.run import carry_out
from vitops.config.load import find_root, store_home
from vitops.errors import UsageError
from vitops.packaging.text import printable
from vitops.plan.opening import open_project
from vitops.plan.plan import Planned
from vitops.plan.request import RunRequest
from vitops.plan.runs import Run, find, illegible, interrupted, settle

if TYPE_CHECKING:
    from rich.console import Console

JSON = dict[str, Any]


def resume(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A name from the list; all are listed.")] = None,
    allow_environment_change: AllowEnvironmentChange = False,
    as_json: AsJson = False,
) -> int:
    """List the runs that were stopped or killed, or go on with one, with the options it was begun with."""
    root = find_root(Path.cwd())
    runs = store_home(root) / "runs"
    if run is None:
        document = {
            "runs": [_describe(one) for one in interrupted(runs)],
            "illegible": [str(file) for file in illegible(runs)],
        }
        emit(document, as_json=as_json, render=lambda console: _render(document, console))
        return 0
    begun = find(runs, run)
    allowed = begun.request.allow_environment_change or allow_environment_change
    asked = begun.asked.model_copy(update={"root": root, "allow_environment_change": allowed})
    if others := changed(begun, open_project(asked).plan()):
        raise UsageError(
            f"run {run} cannot go on: {', '.join(others)} would not be what was begun. `vitops explain "
            f"{asked.pipeline} {others[0]}` names what was edited since: undo that, or begin anew with `vitops run`."
        )
    code = carry_out(asked, as_json=as_json)
    if code == 0:
        settle(runs, run)
    return code


def changed(begun: Run, planned: Iterable[Planned]) -> list[str]:
    """The stages whose keys are not those that the run had, in the plan's order."""
    keys = {stage.name: stage.key for stage in begun.stages if stage.key is not None}
    return [stage.name for stage in planned if stage.key is not None and keys.get(stage.name, stage.key) != stage.key]


def _describe(run: Run) -> JSON:
    return {
        "run": run.name,
        "pipeline": run.request.pipeline,
        "options": options(run.asked),
        "ended": run.ended,
        "stage": run.stage,
        "done": sum(stage.done for stage in run.stages),
        "stages": len(run.stages),
    }


def options(asked: RunRequest) -> list[str]:
    """The options of ``vitops run`` that make this request."""
    given = {"--file": asked.file, "--profile": asked.profile, "--until": asked.until, "--workers": asked.workers}
    single = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    overrides = [word for value in asked.overrides for word in ("--set", value)]
    return [*single, *overrides, *(["--allow-environment-change"] if asked.allow_environment_change else [])]


def _render(document: JSON, console: "Console") -> None:
    for run in document["runs"]:
        command = printable(" ".join(["run", run["pipeline"], *run["options"]]))
        where = f"in {printable(run['stage'])}, " if run["stage"] else ""
        console.print(f"{run['run']}  {run['ended']} {where}{run['done']} of {run['stages']} stages done: {command}")
    for file in document["illegible"]:
        said = f"{printable(file)} cannot be read: type that run's command once more, or delete its folder"
        console.print(said, soft_wrap=True)
    console.print("`vitops resume RUN` goes on with one" if document["runs"] else "no run is interrupted")
