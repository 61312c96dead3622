"""How long to insist on something that fails and may pass.

Laws: at most ``attempts`` tries; before try k (from 2) a random pause of 0 to ``first_pause * 2**(k - 2)`` seconds, no
longer than ``longest_pause``: random, so that many who failed together do not come back together.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """Bounds of one operation. By default pauses sum to 16 s at most; timeouts are seconds of silence."""

    attempts: int = 7
    first_pause: float = 0.25
    longest_pause: float = 8.0
    connect_timeout: float = 5.0
    read_timeout: float = 30.0

    def insist(self, ask: Callable[[], T], *, may_pass: Callable[[Exception], bool]) -> T:
        """What ``ask`` returns; asked again after a failure that ``may_pass``. Raises the last failure."""
        for attempt in range(1, self.attempts):
            try:
                return ask()
            except Exception as error:
                if not may_pass(error):
                    raise
            time.sleep(random.uniform(0.0, min(self.longest_pause, self.first_pause * 2 ** (attempt - 1))))
        return ask()
