"""What every task is: take references of the inputs, let the library bring the stage up to date, return a reference."""

from collections.abc import Callable, Mapping
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from tasks.progress import progress_artifact
from vitops.errors import VitopsError
from vitops.plan.execute import Done, Place, execute
from vitops.plan.stages import Stage
from vitops.store.refs import Ref

Work = Callable[[Place, Stage, Mapping[str, Ref]], Done]


def stage_task(kind: str, *, tags: set[str], work: Work = execute, **options: Any) -> Task[..., Any]:
    """A Prefect task that ends in a state named ``Hit`` or ``Executed`` and carries the stage's reference.

    The store alone decides what is a hit, so Prefect neither caches nor keeps results.
    """

    def died(_task: Any, _run: Any, state: Any) -> bool:
        """A refusal is final; a dead worker is not: the stage goes on from its checkpoint."""
        return not isinstance(state.result(raise_on_failure=False), VitopsError)

    @task(
        name=kind,
        tags=tags,
        task_run_name="{stage.name}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retry_condition_fn=died,
        **options,
    )
    def run(place: Place, stage: Stage, inputs: dict[str, Ref]) -> Any:
        with progress_artifact(stage.name, place.record.folder / "progress.json"):
            done = work(place, stage, inputs)
        return Completed(name="Hit" if done.hit else "Executed", message=done.ref.digest, data=done.ref)

    return run
