"""What the flows share: open the project for one run, wire submitted tasks as ``stages()`` says, and sum up.

A flow says only in which order its tasks are submitted; the inputs of each come from the one owner of the DAG.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import Flow, Task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.futures import PrefectFuture

from flows.orphans import crash_orphans
from tasks.telling import tell
from vitops.plan.execute import Place
from vitops.plan.opening import Opened, open_project
from vitops.plan.request import RunRequest
from vitops.plan.stages import DISTRIBUTED_KINDS, Stage
from vitops.plan.summary import accuracy_table
from vitops.store.refs import Ref
from vitops.training import launch
from vitops.training.preflight import check_models


class Session:
    """Submitted stages of one flow run and their futures."""

    def __init__(self, place: Place, stages: tuple[Stage, ...]) -> None:
        self.place = place
        self._stages = {stage.name: stage for stage in stages}
        self._futures: dict[str, PrefectFuture[Any]] = {}

    def submit(self, task: Task[..., Any], name: str | None = None) -> None:
        """Submit the stage called ``name`` (by default as the task), if the run has it and this task does its kind."""
        stage = self._stages.get(name or task.name)
        if stage is None or stage.kind != task.name:
            return
        inputs = {role: self._futures[upstream] for role, upstream in stage.inputs.items()}
        self._futures[stage.name] = task.submit(self.place, stage, inputs)

    def finish(self) -> dict[str, Ref]:
        """Wait for every stage; raise the error of the first that failed."""
        refs = {name: future.result() for name, future in self._futures.items()}
        if "report" in refs:
            self._publish_artifacts(refs)
        return refs

    def _publish_artifacts(self, refs: dict[str, Ref]) -> None:
        store, pipeline = self.place.store, self.place.record.pipeline
        page = store.materialize(refs["report"].digest) / "report.html"
        tell(create_link_artifact, key="report", link=page.as_uri(), description=f"Report of {pipeline}")
        rows = accuracy_table(store.materialize(refs["evaluate"].digest))
        tell(create_table_artifact, key="accuracy", table=rows, description=f"Test accuracy of {pipeline}, percent")


@contextmanager
def opened(request: RunRequest) -> Iterator[Session]:
    """The project opened for this request, with a Ray cluster while a training stage is going to run."""
    project = open_project(request)
    crash_orphans(project.store.runs)
    due = _due(project)
    check_models(request.pipeline, due, root=project.root)
    with _cluster(project, due):
        yield Session(project.place(), project.stages)


def flow_of(request: RunRequest) -> Flow[..., Any]:
    """The flow that the requested pipeline names."""
    name = open_project(request).flow
    flow: Flow[..., Any] = getattr(importlib.import_module(f"flows.{name}"), name)
    return flow


def _due(project: Opened) -> list[Stage]:
    """The stages that are no hits, so that they run or may run."""
    hits = {planned.name for planned in project.plan() if planned.status == "hit"}
    return [stage for stage in project.stages if stage.name not in hits]


@contextmanager
def _cluster(project: Opened, due: list[Stage]) -> Iterator[None]:
    training = any(stage.kind in DISTRIBUTED_KINDS for stage in due)
    if training and project.resources.launcher == "ray":
        with project.store.workspace() as folder, launch.cluster(project.resources, folder):
            yield
    else:
        yield
