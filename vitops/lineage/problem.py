"""What ``verify`` finds: something that is not as it was published."""

from dataclasses import dataclass
from pathlib import Path

RUN_AGAIN = "Run the pipeline that made it again."
FROM_BACKUP = "Restore the file from a backup."


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was published: which file or object (by its URL), and a sentence."""

    path: Path | str
    sentence: str


def stray(path: Path | str) -> Problem:
    """The problem of a name that means nothing."""
    return Problem(path, "nothing of the store has this name. Move it away.")
