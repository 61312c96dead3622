"""``vitops verify``: hash everything again and name what is altered."""

from pathlib import Path
from typing import TYPE_CHECKING

from vitops.cli.console import emit
from vitops.cli.options import AsJson
from vitops.config.load import find_root, store_home
from vitops.errors import UsageError, VerificationError
from vitops.lineage.problem import Problem
from vitops.lineage.verify import verify as run
from vitops.packaging.text import printable

if TYPE_CHECKING:
    from rich.console import Console


def verify(as_json: AsJson = False) -> int:
    """Re-hash store, ledger, checkpoints and data folders (not caches); exit 3 and name every file that is altered."""
    root = find_root(Path.cwd())
    home = store_home(root)
    if not home.is_dir():
        raise UsageError(f"{home} is no store: run a pipeline first, or name the right folder with VITOPS_HOME")
    problems = run(home, root)
    document = {"verified": not problems, "problems": [{"path": str(p.path), "problem": p.sentence} for p in problems]}
    emit(document, as_json=as_json, render=lambda console: _render(problems, console))
    return VerificationError.exit_code if problems else 0


def _render(problems: list[Problem], console: "Console") -> None:
    for problem in problems:
        console.print(printable(f"{problem.path}: {problem.sentence}"), soft_wrap=True)
    if not problems:
        console.print("every byte is what its digest says")
