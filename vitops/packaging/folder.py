"""A package folder: which files it has, and reading them only after their SHA-256 agrees with receipt.json.

Laws: receipt.json lists every other file of the package, and nothing else; a file is hashed and used from one read, so
that what runs is what was checked. Nothing here imports torch.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitops.errors import UsageError, VerificationError
from vitops.packaging.text import printable

RECEIPT = "receipt.json"
ONNX_FILES = {"int8": "model.int8.onnx", "fp32": "model.onnx"}
FILES = ("model.safetensors", "model.json", "model.onnx", "model.int8.onnx", "preprocessing.json", "card.md")
"""The subjects of the receipt."""


@dataclass(frozen=True)
class PackageFolder:
    """An opened package: ``subjects`` maps a file name to the SHA-256 that its receipt states."""

    path: Path
    subjects: dict[str, str]

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises VerificationError when they are missing or not those of the receipt."""
        stated = self.subjects.get(name)
        if stated is None:
            raise VerificationError(f"{self._say(RECEIPT)} does not list {name}: this is no complete vitops package")
        try:
            data = (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise VerificationError(f"{self._say(name)} is missing, but the package's receipt lists it") from error
        found = hashlib.sha256(data).hexdigest()
        if found != stated:
            raise VerificationError(
                f"{self._say(name)} was altered: its SHA-256 is {found}, the package's receipt says {stated}. "
                "Nothing was run; get the package again, or run its pipeline again to repair the store"
            )
        return data

    def read_json(self, name: str) -> dict[str, Any]:
        """One JSON file of the package, verified."""
        document: dict[str, Any] = json.loads(self.read(name))
        return document

    def _say(self, name: str) -> str:
        return printable(str(self.path / name))


def open_package(path: Path) -> PackageFolder:
    """Open a package by its receipt.

    Raises UsageError when ``path`` is no package, VerificationError when its receipt is broken.
    """
    receipt = path / RECEIPT
    if not receipt.is_file():
        raise UsageError(
            f"{printable(str(path))} is no package: it has no {RECEIPT}. "
            "Give the folder that `vitops run` printed as package"
        )
    try:
        statement = json.loads(receipt.read_bytes())
        subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationError(f"{printable(str(receipt))} is no in-toto statement: {error!r}") from error
    return PackageFolder(path, subjects)
