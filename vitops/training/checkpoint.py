"""Checkpoints: complete, whole or absent, and never older than the last verified one.

A checkpoint is a folder ``e<epoch>-s<steps done>-a<attempt>`` with ``state.safetensors``, ``state.json`` and their
``manifest.json``, hashed while they are written aside, then renamed. Laws: an older one is removed only after the
newest was read back and verified; two are kept; a damaged one is reported, removed and passed over. Each start of a
training claims the next attempt number with a create-only file that holds a ticket of its own; a writer that finds a
later claim (its driver died, another took over), or its own gone (another even finished), changes nothing any more and
stops. A folder is renamed before it is removed: a writer that was given up cannot go on in it, and of two that remove
the same one only one does. On a shared store (``shared_checkpoints``) all this holds there as well.
"""

import json
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vitops.errors import VerificationError
from vitops.store import canonical, durable, manifest
from vitops.store.job import Position
from vitops.store.manifest import FileEntry
from vitops.store.readable import readable
from vitops.training.shared_checkpoints import KEPT, NAME, SharedCheckpoints, Uploads, stop_if_overtaken
from vitops.training.tensor_stream import stream

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

    def __init__(self, folder: Path, shared: SharedCheckpoints | None = None) -> None:
        """``shared``: the same training's checkpoints on a shared store. Raises VitopsError when it does not answer."""
        self._folder = durable.make_folder(folder)
        self._claims = durable.make_folder(folder / "attempts")
        self._shared = shared
        self._uploads = Uploads(shared) if shared else None
        self._ticket = uuid.uuid4().hex.encode()
        self._attempt = self._claim()
        for leftover in [*folder.glob("aside-*"), *folder.glob("dead-*")]:
            self._discard(leftover)

    def save(self, position: Position, saved: Saved) -> None:
        """Write, verify, drop what is older than the last two; then let it be uploaded.

        Raises Overtaken when a later attempt has begun.
        """
        self._stop_if_superseded()
        target = self._folder / f"e{position.epoch:06d}-s{position.step:09d}-a{self._attempt:06d}"
        if target.exists():
            return
        aside = durable.make_folder(self._folder / f"aside-{target.name}")
        try:
            self._fill(aside, saved)
            self._stop_if_superseded()
            durable.rename_dir(aside, target)
            manifest.check(target)
        except (FileNotFoundError, VerificationError):
            self._stop_if_superseded()  # a later attempt has cleared away what this one was writing
            raise
        self._drop_old()
        if self._uploads:
            self._uploads.offer(target)

    def newest(self) -> tuple[Saved | None, list[str]]:
        """The newest good checkpoint, or None, and a sentence for each damaged one that was passed over and removed."""
        damaged: list[str] = []
        while (name := self._newest_name()) is not None:
            folder = self._folder / name
            here = folder.is_dir()
            try:
                if not here and not self._fetched(folder):
                    continue
                return _read(folder), damaged
            except VerificationError as error:
                damaged.append(f"checkpoint {folder if here else name} is damaged and was removed: {error}")
                if here:
                    self._discard(folder)
                elif self._shared:
                    self._shared.drop(name)
        return None, damaged

    def close(self) -> None:
        """Wait until the newest is uploaded, or has failed to be, for seconds at most: it is on this disk."""
        if self._uploads:
            self._uploads.close()

    def _fill(self, aside: Path, saved: Saved) -> None:
        pieces = {_TENSORS: stream(saved.tensors), _RECORD: [canonical.pretty(saved.record)]}
        entries = [FileEntry(name, *durable.write_hashed(aside / name, chunks)) for name, chunks in pieces.items()]
        durable.write_bytes(aside / manifest.NAME, manifest.render(entries))

    def _found(self) -> list[Path]:
        """Finished checkpoints of this folder, newest position first."""
        return sorted((path for path in self._folder.iterdir() if NAME.fullmatch(path.name)), reverse=True)

    def _newest_name(self) -> str | None:
        shared = self._shared.names() if self._shared else []
        return max([*(path.name for path in self._found()), *shared], default=None)

    def _fetched(self, folder: Path) -> bool:
        return self._shared is not None and self._shared.fetch(folder.name, folder, files={_TENSORS, _RECORD})

    def _drop_old(self) -> None:
        for older in self._found()[KEPT:]:
            if not (self._uploads and self._uploads.needs(older)):
                self._stop_if_superseded()
                self._discard(older)

    def _discard(self, folder: Path) -> None:
        dead = folder.with_name(f"dead-{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):  # another attempt was faster
            durable.rename_dir(folder, dead)
            durable.remove(dead / manifest.NAME)
            durable.remove(dead)

    def _claim(self) -> int:
        number = max(self._latest(), self._shared.latest_attempt() if self._shared else 0) + 1
        while not self._claimed(number):
            number += 1
        return number

    def _claimed(self, number: int) -> bool:
        if self._shared and not self._shared.claim(number, self._ticket):
            return False
        return durable.create_only(self._claims / f"{number:06d}", self._ticket)

    def _latest(self) -> int:
        return max((int(path.name) for path in self._claims.iterdir() if path.name.isdigit()), default=0)

    def _stop_if_superseded(self) -> None:
        if self._uploads and self._uploads.overtaken:
            raise self._uploads.overtaken
        try:
            latest, own = self._latest(), (self._claims / f"{self._attempt:06d}").read_bytes()
        except FileNotFoundError:
            latest, own = 0, b""
        stop_if_overtaken(f"in {self._folder}", attempt=self._attempt, latest=latest, own=own == self._ticket)


def _read(folder: Path) -> Saved:
    manifest.check(folder)
    try:
        with readable(folder):
            tensors, record = (folder / _TENSORS).read_bytes(), (folder / _RECORD).read_bytes()
        return Saved(load(tensors), json.loads(record))
    except (FileNotFoundError, SafetensorError, ValueError) as error:
        raise VerificationError(f"{folder} is no checkpoint: {error}") from error
