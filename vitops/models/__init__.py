"""Architectures, their artifacts and their heads.

``build`` makes a module from a configuration section, ``save`` and ``load`` move it through an artifact folder.
"""

from vitops.models.artifact import ModelSpec, attach, load, save
from vitops.models.heads import heads, predict
from vitops.models.registry import build

__all__ = ["ModelSpec", "attach", "build", "heads", "load", "predict", "save"]
