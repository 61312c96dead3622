"""Declare two operator schemas that torchvision misses when its compiled library does not fit this torch.

A torchvision built for CUDA on a CPU build of torch dies at import with ``operator torchvision::nms does not exist``,
and timm imports torchvision. A finder waits for the first import of torchvision (torch is not imported before that),
tries the compiled library, and only if that does not load declares the schemas. A matched pair, as on a GPU machine,
is left untouched.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import pathlib
import sys
from collections.abc import Sequence
from types import ModuleType


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            declare_missing_operators()
        return None


def declare_missing_operators() -> None:
    """Load torchvision's compiled operators, or declare ``nms`` and ``qnms`` without an implementation."""
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in pathlib.Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(library)
            return
        except OSError:
            continue
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def install() -> None:
    """Wait for torchvision, once per process."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
