"""``python -m vitops.cli.watch FILE``: end a run's processes when its supervisor dies, however it dies.

The supervisor holds the other end of our stdin and never writes: end of file means that it is gone. If it ended as it
should, it removed the file that lists the run's processes, and nothing is left to do.
"""

import sys
from pathlib import Path

from vitops.cli.family import end_family


def main() -> None:
    """Wait for the supervisor's end, then end what it left."""
    sys.stdin.buffer.read()
    end_family(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
