"""What came of many disturbances."""

from collections import Counter
from dataclasses import dataclass, field

SAME, DIVERGENT, STUCK = "same", "divergent", "stuck"
"""As the undisturbed run; not as it; not without a repair by hand."""
UNREACHED, UNNAMED = "unreached", "unnamed error"
"""The fault was never met; it was met by a traceback."""
NAMED, AGAIN = "named", "made again"
"""The one thing that cannot be made again is named for ever; a damaged artifact was made again, with a receipt."""
WELL = (SAME, NAMED, AGAIN)


@dataclass
class Tally:
    """``points``: disturbances that were judged; ``kills``: by stage; ``findings`` says what was not well."""

    points: int = 0
    kills: Counter = field(default_factory=Counter)
    verdicts: Counter = field(default_factory=Counter)
    findings: list = field(default_factory=list)

    def add(self, what, verdict, sentences, *, kills=()):
        """Count one disturbance, in which a process was killed in each of the stages ``kills``."""
        self.points += 1
        self.verdicts[verdict] += 1
        self.kills.update(kills)
        if verdict not in WELL:
            self.findings.append((str(what), verdict, *sentences))

    def __add__(self, other):
        return Tally(
            self.points + other.points,
            self.kills + other.kills,
            self.verdicts + other.verdicts,
            self.findings + other.findings,
        )
