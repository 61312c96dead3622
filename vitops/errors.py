"""The errors a user can act on, each tied to the exit code of the command line.

A message says what was wrong, where (file, line, key) and what would be right, in one paragraph.
Anything else that escapes is a defect of vitops and keeps its traceback.
"""


class VitopsError(Exception):
    """A stage or a gate failed (exit code 1)."""

    exit_code = 1


class UsageError(VitopsError):
    """Wrong usage or configuration (exit code 2)."""

    exit_code = 2


class VerificationError(VitopsError):
    """Bytes are not what their digest says (exit code 3)."""

    exit_code = 3


class Interrupted(VitopsError):
    """Stopped by SIGTERM or SIGINT with its work saved: run again to resume (exit code 75)."""

    exit_code = 75


class Overtaken(Interrupted):
    """Another run has taken over a training: this one must write no more."""
