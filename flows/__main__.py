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
    from flows import server

    try:
        _flow(request)
    except VitopsError as error:
        return error.exit_code, str(error), True
    except Exception as error:  # noqa: BLE001 - the process boundary: whatever it was, the parent must learn of it
        traceback.print_exc()
        if server.silent(error):
            return (*_without_server(error, request, folder), False)
        return 1, f"{type(error).__name__}: {error}", True
    return 0, None, True


def _flow(request: RunRequest) -> None:
    from flows import server
    from flows.session import flow_of

    with server.kept_alive():
        flow_of(request)(request)


def _without_server(lost: Exception, request: RunRequest, folder: Path) -> tuple[int, str | None]:
    """What a run comes to whose server stopped answering: its own end, or the rest of it with a server of its own."""
    from flows import server

    own = next((error for error in server.chain(lost) if isinstance(error, VitopsError)), None)
    if own is not None:
        return own.exit_code, str(own)
    stages = (read_record(folder / "run.json") or {"stages": [{"status": "pending"}]})["stages"]
    if all(stage["status"] in {"hit", "executed"} for stage in stages):
        return 0, None
    try:
        with server.of_its_own():
            _flow(request)
    except VitopsError as error:
        return error.exit_code, str(error)
    except Exception as error:  # noqa: BLE001 - see above
        traceback.print_exc()
        return Interrupted.exit_code, (
            f"the Prefect server stopped answering ({lost}) and one of the run's own did not start ({error}). "
            "What is done is kept: run the same command again when the server is back, or without PREFECT_API_URL."
        )
    return 0, None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
