"""``python -m flows RUN_FOLDER PARENT``: the supervised child that runs one flow and leaves ``outcome.json`` there."""

import logging
import os
import sys
import traceback
from pathlib import Path

from vitops.data.tied import die_with_parent
from vitops.errors import Interrupted, VitopsError
from vitops.plan.record import read_record, write_atomically
from vitops.plan.request import RunRequest


def main(folder: Path, parent: int) -> int:
    """Run the flow that the pipeline names as the child of ``parent``; return the documented exit code."""
    die_with_parent(parent)
    request = RunRequest.model_validate_json((folder / "request.json").read_text())
    code, error, answered = _run(request, folder)
    try:
        write_atomically(folder / "outcome.json", {"exit_code": code, "error": error})
    except VitopsError as lost:
        sys.stderr.write(f"{error or ''}\n{lost}\n")
        code = lost.exit_code
    if not answered:
        sys.stderr.flush()
        os._exit(code)  # Prefect's threads would try for minutes to hand their events to a server that is gone
    return code


def _run(request: RunRequest, folder: Path) -> tuple[int, str | None, bool]:
    """The exit code, an error paragraph, and whether Prefect's server answered to the end."""
    logging.getLogger("prefect").setLevel(logging.ERROR)
    from flows.server import NO_ANSWER, kept_alive
    from flows.session import flow_of

    try:
        with kept_alive():
            flow_of(request)(request)
    except VitopsError as error:
        return error.exit_code, str(error), True
    except NO_ANSWER as lost:
        return (*_without_server(lost, folder), False)
    except Exception as error:  # noqa: BLE001 - the process boundary: whatever it was, the parent must learn of it
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}", True
    return 0, None, True


def _without_server(lost: Exception, folder: Path) -> tuple[int, str | None]:
    """What a run came to whose end Prefect could not be told."""
    traceback.print_exception(lost)
    cause: BaseException | None = lost
    while cause is not None:
        if isinstance(cause, VitopsError):
            return cause.exit_code, str(cause)
        cause = cause.__cause__ or cause.__context__
    stages = (read_record(folder / "run.json") or {"stages": [{"status": "pending"}]})["stages"]
    if all(stage["status"] in {"hit", "executed"} for stage in stages):
        return 0, None
    return Interrupted.exit_code, (
        f"the Prefect server does not answer ({lost}), and the run needs it between its stages; what is done is kept. "
        "Run the same command again when the server is back, or without PREFECT_API_URL."
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
