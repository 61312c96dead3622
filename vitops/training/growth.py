"""When a training that works with fewer workers than configured looks for room for more.

Law: each try costs a restart, so one that failed doubles the work that is done before the next, up to a limit.
"""

LOOK_SECONDS = 5.0
"""Between two looks for room, and before the first."""
LONGEST_SECONDS = 600.0
"""Of work between a try that failed and the next look, at most."""


class Growth:
    """The pauses of one training. Moments are those of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._pause = LOOK_SECONDS
        self._next: float | None = None

    def take_look(self, now: float) -> bool:
        """Whether a look for room is taken now, which begins the next pause; ask only while the training works."""
        if self._next is None:
            self._next = now + self._pause
        if now < self._next:
            return False
        self._next = now + LOOK_SECONDS
        return True

    def failed(self) -> float:
        """Note that a larger group could not start; return the seconds of work until the next look."""
        self._pause = min(2 * self._pause, LONGEST_SECONDS)
        self._next = None
        return self._pause
