"""``python -m flows RUN_FOLDER``: the supervised child that runs one flow and leaves ``outcome.json`` in the folder."""

import ctypes
import logging
import signal
import sys
import traceback
from pathlib import Path

from vitops.errors import VitopsError
from vitops.plan.record import write_atomically
from vitops.plan.request import RunRequest

PR_SET_PDEATHSIG = 1


def main(folder: Path) -> int:
    """Run the flow that the pipeline names; return the documented exit code."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    request = RunRequest.model_validate_json((folder / "request.json").read_text())
    code, error = _run(request)
    write_atomically(folder / "outcome.json", {"exit_code": code, "error": error})
    return code


def _run(request: RunRequest) -> tuple[int, str | None]:
    logging.getLogger("prefect").setLevel(logging.ERROR)
    from flows.session import flow_of

    try:
        flow_of(request)(request)
    except VitopsError as error:
        return error.exit_code, str(error)
    except Exception as error:  # noqa: BLE001 - the process boundary: whatever it was, the parent must learn of it
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}"
    return 0, None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
