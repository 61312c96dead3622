"""``python -m vitops.cli.watch FILE``: end a run's processes when its supervisor dies, however it dies.

The supervisor holds the other end of our stdin and never writes: end of file means that it is gone, or will be in a
moment, for a dying process closes its files first. If it ended as it should, it removed the file that lists the run's
processes, and nothing is left to do.
"""

import sys
import time
from pathlib import Path

from vitops.cli.family import end_family
from vitops.plan.runs import supervised


def main(file: Path) -> None:
    """Wait for the supervisor's end, then end what it left."""
    sys.stdin.buffer.read()
    while file.exists() and supervised(file.parent):
        time.sleep(0.02)
    end_family(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
