"""``python -m flows RUN_FOLDER PARENT``: the supervised child that runs one flow and leaves ``outcome.json`` there."""

import logging
import sys
import traceback
from pathlib import Path

from vitops.data.tied import die_with_parent
from vitops.errors import VitopsError
from vitops.plan.record import write_atomically
from vitops.plan.request import RunRequest


def main(folder: Path, parent: int) -> int:
    """Run the flow that the pipeline names as the child of ``parent``; return the documented exit code."""
    die_with_parent(parent)
    request = RunRequest.model_validate_json((folder / "request.json").read_text())
    code, error = _run(request)
    try:
        write_atomically(folder / "outcome.json", {"exit_code": code, "error": error})
    except VitopsError as lost:
        sys.stderr.write(f"{error or ''}\n{lost}\n")
        return lost.exit_code
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
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
