"""The one training loop: exact, resumable, launched in one process or under Ray Train.

``from vitops.training import fit`` imports torch on use; importing the package, or its ``launch``, does not.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitops.training.comm import Comm
    from vitops.training.loop import FitResult, fit

__all__ = ["Comm", "FitResult", "fit"]


def __getattr__(name: str) -> Any:
    if name == "Comm":
        from vitops.training.comm import Comm

        return Comm
    if name in {"FitResult", "fit"}:
        from vitops.training import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
