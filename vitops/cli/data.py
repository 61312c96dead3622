"""``vitops data STAGE DATASET``: the data stages as dvc.yaml calls them, and the digests of their code."""

import json
import logging
import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vitops.config.load import find_root, load, store_home
from vitops.data import stage
from vitops.data.dvc_process import REPORT
from vitops.data.tied import die_with_parent
from vitops.errors import Interrupted, UsageError, VitopsError
from vitops.plan import data_code
from vitops.store.stat_memo import StatMemo

_CODE_OF = {"arrive": ("ingest",), "configure": ("ingest", "validate", "split")}


class Action(Enum):
    """What to do: a data stage, or ``code`` for data/stages.json."""

    configure = "configure"
    arrive = "arrive"
    ingest = "ingest"
    validate = "validate"
    split = "split"
    code = "code"


def data(
    action: Annotated[Action, typer.Argument(help="A data stage, or code: are the digests in data/stages.json fresh?")],
    dataset: Annotated[str | None, typer.Argument(help="A name under datasets: (not for code).")] = None,
    write: Annotated[bool, typer.Option("--write", help="With code: bring data/stages.json up to date.")] = False,
) -> None:
    """Run one data stage. DVC does this: `dvc repro split@digits` runs what is needed."""
    root = find_root(Path.cwd())
    if action is Action.code:
        _code(root, write=write)
    elif dataset is None:
        raise UsageError(f"vitops data {action.value}: name a dataset, e.g. `vitops data {action.value} digits`")
    else:
        _reported(root, dataset, action.value)


def _code(root: Path, *, write: bool) -> None:
    memo = _memo(root)
    if write:
        data_code.write(root, memo)
    elif not data_code.fresh(root, memo):
        raise VitopsError(f"{data_code.FILE} is not what the code is now: run `vitops data code --write`")
    memo.save()


def _reported(root: Path, dataset: str, action: str) -> None:
    """Run the stage; tell whoever asked through the environment how it ended."""
    die_with_parent()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("vitops").setLevel(logging.INFO)
    outcome: dict[str, str | int] = {"stage": action, "exit_code": 0, "message": ""}
    try:
        _check_code(root, dataset, action)
        stage.run(root, dataset, action)
    except VitopsError as error:
        outcome |= {"exit_code": error.exit_code, "message": str(error)}
        raise
    except KeyboardInterrupt:
        outcome |= {"exit_code": Interrupted.exit_code, "message": f"{action} was interrupted; run the command again"}
        raise
    finally:
        _tell(outcome)


def _tell(outcome: dict[str, str | int]) -> None:
    if REPORT in os.environ:
        with Path(os.environ[REPORT]).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(outcome) + "\n")


def _check_code(root: Path, dataset: str, action: str) -> None:
    """DVC decided by the digests in data/stages.json: they must be those of the code that is about to run."""
    declared, memo = load(root).dataset(dataset), _memo(root)
    try:
        written = json.loads((root / data_code.FILE).read_bytes()).get(dataset, {})
    except (OSError, ValueError):
        written = {}
    current = data_code.digests({dataset: declared}, memo)[dataset]
    memo.save()
    for kind in _CODE_OF.get(action, (action,)):
        if written.get(kind) != current[kind]:
            raise UsageError(
                f"{data_code.FILE} does not have the digest of {kind}@{dataset}'s code as it is now: "
                "run `vitops data code --write`, then again"
            )


def _memo(root: Path) -> StatMemo:
    return StatMemo(store_home(root) / "cache")
