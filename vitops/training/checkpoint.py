"""Checkpoints: complete, whole or absent, and never older than the last verified one.

A checkpoint is a folder ``e<epoch>-s<steps done>-a<attempt>`` with ``state.safetensors``, ``state.json`` and their
``manifest.json``, hashed while they are written aside, then renamed. Laws: an older one is removed only after the
newest was read back and verified; two are kept; a damaged one is reported, removed and passed over. Each start of a
training claims the next attempt number with a create-only file; a writer that finds a later claim (its driver died,
another took over) stops.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vitops.errors import Overtaken, VerificationError
from vitops.store import canonical, durable, manifest
from vitops.store.job import Position
from vitops.store.manifest import FileEntry
from vitops.training.tensor_stream import stream

KEPT = 2
_NAME = re.compile(r"e(\d{6})-s(\d{6})-a(\d{6})")
_TENSORS, _RECORD = "state.safetensors", "state.json"


@dataclass(frozen=True)
class Saved:
    """One checkpoint's content: tensors by name, and everything else as JSON."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]

    def pack(self) -> bytes:
        """One byte string that ``unpack`` reads back."""
        record = canonical.dumps(self.record)
        return len(record).to_bytes(8, "big") + record + save(self.tensors)

    @staticmethod
    def unpack(data: bytes) -> "Saved":
        """The inverse of ``pack``."""
        end = 8 + int.from_bytes(data[:8], "big")
        return Saved(load(data[end:]), json.loads(data[8:end]))


class Checkpoints:
    """The checkpoints of one training in ``folder``, for one attempt at it. Used by rank 0 alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = durable.make_folder(folder)
        self._claims = durable.make_folder(folder / "attempts")
        self._attempt = self._claim()
        for leftover in folder.glob("aside-*"):
            durable.remove(leftover)

    def save(self, position: Position, saved: Saved) -> None:
        """Write, verify, drop what is older than the last two. Raises Overtaken when a later attempt has begun."""
        target = self._folder / f"e{position.epoch:06d}-s{position.step:06d}-a{self._attempt:06d}"
        if target.exists():
            return
        aside = durable.make_folder(self._folder / f"aside-{target.name}")
        try:
            self._fill(aside, saved)
        except FileNotFoundError:
            self._stop_if_superseded()  # a later attempt has cleared away what this one was writing
            raise
        self._stop_if_superseded()
        durable.rename_dir(aside, target)
        manifest.check(target)
        for older in self._found()[KEPT:]:
            durable.remove(older)

    def _fill(self, aside: Path, saved: Saved) -> None:
        pieces = {_TENSORS: stream(saved.tensors), _RECORD: [canonical.pretty(saved.record)]}
        entries = [FileEntry(name, *durable.write_hashed(aside / name, chunks)) for name, chunks in pieces.items()]
        durable.write_bytes(aside / manifest.NAME, manifest.render(entries))

    def newest(self) -> tuple[Saved | None, list[str]]:
        """The newest good checkpoint, or None, and a sentence for each damaged one that was passed over and removed."""
        damaged: list[str] = []
        for folder in self._found():
            try:
                return _read(folder), damaged
            except VerificationError as error:
                damaged.append(f"checkpoint {folder} is damaged and was removed: {error}")
                durable.remove(folder)
        return None, damaged

    def _found(self) -> list[Path]:
        """Finished checkpoints, newest position first."""
        return sorted((path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)

    def _claim(self) -> int:
        number = self._latest() + 1
        while not durable.create_only(self._claims / f"{number:06d}", b""):
            number += 1
        return number

    def _latest(self) -> int:
        return max((int(path.name) for path in self._claims.iterdir() if path.name.isdigit()), default=0)

    def _stop_if_superseded(self) -> None:
        if self._latest() > self._attempt:
            raise Overtaken(
                f"another run has taken over the training in {self._folder} (attempt {self._latest()}; this is "
                f"{self._attempt}). Its checkpoints go on from here."
            )


def _read(folder: Path) -> Saved:
    manifest.check(folder)
    try:
        return Saved(load((folder / _TENSORS).read_bytes()), json.loads((folder / _RECORD).read_bytes()))
    except (FileNotFoundError, SafetensorError, ValueError) as error:
        raise VerificationError(f"{folder} is no checkpoint: {error}") from error
