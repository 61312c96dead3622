"""The torch model of a package, for people who want to train or prune it further."""

import tempfile
from pathlib import Path

from torch import nn

from vitops.models import ModelSpec, load
from vitops.packaging.folder import open_package

_ARTIFACT_NAMES = {"model.safetensors": "weights.safetensors", "model.json": "model.json"}


def rebuild(package: Path) -> tuple[nn.Module, ModelSpec]:
    """The module in evaluation mode and its spec. Raises VerificationError when a file is not what the receipt says."""
    folder = open_package(package)
    with tempfile.TemporaryDirectory() as scratch:
        for packaged, name in _ARTIFACT_NAMES.items():
            Path(scratch, name).write_bytes(folder.read(packaged))
        return load(Path(scratch))
