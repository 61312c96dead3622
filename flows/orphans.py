"""Prefect does not notice that a run was SIGKILLed: its flow run and task runs stay RUNNING for ever.

Laws: only runs of this store whose supervisor is gone are touched; they become CRASHED. A
server that does not answer is left to the run itself.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Crashed

from tasks.telling import log, tell
from vitops.plan.runs import supervisor_gone

_OPEN = {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}


def crash_orphans(runs: Path) -> None:
    """Set what killed runs of the store (``runs`` is its folder of runs) left open to CRASHED."""
    started = time.monotonic()
    with get_client(sync_client=True) as client:
        found = tell(_orphans, client, runs) or []
        for orphan in found:
            tell(_crash, client, orphan)
    if found:
        log.info("%d killed runs set to CRASHED in %.2f s", len(found), time.monotonic() - started)


def _orphans(client: SyncPrefectClient, runs: Path) -> Sequence[FlowRun]:
    unfinished = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(_OPEN))
    return [run for run in unfinished if _gone(runs, run.parameters.get("request"))]


def _gone(runs: Path, request: Any) -> bool:
    """Whether the request that a flow run was started with is that of a run of this store, and nobody runs it."""
    if not isinstance(request, dict) or not request.get("run_id") or not request.get("home"):
        return False
    folder = Path(str(request["home"]), "runs", str(request["run_id"]))
    return folder.parent.resolve() == runs.resolve() and supervisor_gone(folder)


def _crash(client: SyncPrefectClient, run: FlowRun) -> None:
    state: State[Any] = Crashed(message="its process is gone")
    mine = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
    for task in client.read_task_runs(flow_run_filter=mine, task_run_filter=TaskRunFilter.model_validate(_OPEN)):
        client.set_task_run_state(task.id, state, force=True)
    client.set_flow_run_state(run.id, state, force=True)
