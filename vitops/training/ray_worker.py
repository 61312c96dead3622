"""The worker's side of a group of Ray Train workers: ranks that wait for jobs in the group's folder and answer them.

Laws: a job has one answer, the first. A body is asked to stop by one file, whether the run is to end or the group is to
make way for a larger one; in the second case the job stays without an answer and the larger group goes on with it. What
ranks must do together they decide together, for each sees a file appear at its own time.
"""

import json
import pkgutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitops.errors import Interrupted, Overtaken, UsageError, VerificationError, VitopsError
from vitops.store import canonical, durable
from vitops.store.job import Job, Outcome

if TYPE_CHECKING:
    from vitops.training.comm import Comm

Body = Callable[[Job, "Comm"], Outcome]

ERRORS = {kind.__name__: kind for kind in (VitopsError, UsageError, VerificationError, Interrupted)}
POLL_SECONDS = 0.05
OPENED, CLOSED, HALT, MAKE_WAY = "opened", "closed", "halt", "make-way"


def serve(config: dict[str, Any]) -> None:
    """One rank: every job that has no answer yet, until the group is closed or makes way.

    What a body raises makes Ray end the other ranks, which may wait for this one, and start the group again.
    """
    from vitops.training.comm import Comm

    folder, number = Path(config["folder"]), 1
    if not (folder / OPENED).exists():
        raise VitopsError(
            f"the node {socket.gethostname()} does not see {folder}: all nodes of a Ray cluster must have the store "
            "(VITOPS_HOME) at the same path"
        )
    comm = Comm.distributed()
    while _wait(folder, number):
        if not comm.agree(int(answer_file(folder, number).exists())) and not _work(folder, number, comm):
            return
        number += 1


def job_file(folder: Path, number: int) -> Path:
    """What is to be done."""
    return folder / f"job-{number:04d}.json"


def begun_file(folder: Path, number: int) -> Path:
    """Appears when the workers take the job up."""
    return folder / f"begun-{number:04d}"


def answer_file(folder: Path, number: int) -> Path:
    """What came of it."""
    return folder / f"answer-{number:04d}.json"


def answer_with(error: VitopsError, answer: Path) -> None:
    """Answer a job with an error, unless it has an answer."""
    kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERRORS)
    durable.create_only(answer, canonical.dumps({"error": kind, "message": str(error)}))


def _wait(folder: Path, number: int) -> bool:
    """Wait for a job; False when the group was closed instead."""
    while not job_file(folder, number).exists():
        if (folder / CLOSED).exists():
            return False
        time.sleep(POLL_SECONDS)
    return True


def _work(folder: Path, number: int, comm: "Comm") -> bool:
    """Answer one job; False when the group makes way instead."""
    work = json.loads(job_file(folder, number).read_bytes())
    job, answer = Job.model_validate(work["job"]), answer_file(folder, number)
    if comm.rank == 0:
        begun_file(folder, number).touch()
    try:
        outcome = _resolve(work["body"])(job.model_copy(update={"stop": folder / HALT}), comm)
    except Overtaken as error:
        answer_with(error, answer)
    except Interrupted as error:  # raised on every rank: nobody waits
        if comm.agree(int((folder / MAKE_WAY).exists() and not job.stopping())):
            return False
        answer_with(error, answer)
    except VitopsError as error:
        answer_with(error, answer)
        raise
    else:
        if comm.rank == 0:
            durable.create_only(answer, canonical.dumps({"outcome": outcome.model_dump(mode="json")}))
    return True


def _resolve(name: str) -> Body:
    body: Body = pkgutil.resolve_name(name)
    return body
