"""What training minimises: one objective per file."""

from vitops.losses.objective import Objective
from vitops.losses.registry import build

__all__ = ["Objective", "build"]
