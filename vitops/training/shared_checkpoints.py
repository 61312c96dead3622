"""The checkpoints of one training on a shared store, from which another machine goes on.

    <name>/state.safetensors, state.json, manifest.json
    attempts/<number>

Laws: the manifest is created last, so a checkpoint is there completely or not at all; two are kept, and an older one is
removed only after the newest was read back; an attempt that another one followed changes nothing any more. The upload
has a thread of its own and takes the newest checkpoint that is on disk: no step ever waits for it, a slow one skips
those that were overtaken meanwhile, and the end waits for the last one for seconds only. So another machine may go on
from one upload earlier than this one could.
"""

import logging
import pkgutil
import re
import threading
from pathlib import Path

from vitops.errors import Overtaken, VerificationError, VitopsError
from vitops.store import durable, manifest
from vitops.store.objects import Objects

KEPT = 2
LAST_SECONDS = 5.0
"""What the end of a training, or its stop, waits for the upload under way: far less than a container's usual grace."""
NAME = re.compile(r"e(\d{6})-s(\d{9})-a(\d{6})")
"""Of a checkpoint's folder: epoch, steps done in it, attempt."""
_ATTEMPTS = "attempts/"
_OPENED_BY = "vitops.store.shared:objects_at"
log = logging.getLogger(__name__)


def stop_if_overtaken(where: str, *, attempt: int, latest: int, own: bool) -> None:
    """Raises Overtaken if a later attempt was claimed, or the claim of this one is not its ``own`` any more."""
    if not own:
        raise Overtaken(f"another run has finished or removed the training {where}: this one stops.")
    if latest > attempt:
        raise Overtaken(
            f"another run has taken over the training {where} (attempt {latest}; this is {attempt}). "
            "Its checkpoints go on from here."
        )


def opened(url: str) -> Objects:
    """The objects below the URL. Which server holds them changes no bits, so its client is in no stage's code."""
    objects: Objects = pkgutil.resolve_name(_OPENED_BY)(url)
    return objects


class SharedCheckpoints:
    """The checkpoints in ``objects`` for one attempt, which ``claim`` makes. Raises VitopsError where none answers."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._attempt, self._ticket = 0, b""

    def latest_attempt(self) -> int:
        """The highest number claimed; 0 if there is none."""
        numbers = [name.removeprefix(_ATTEMPTS) for name in self._objects.sizes(_ATTEMPTS)]
        return max((int(number) for number in numbers if number.isdigit()), default=0)

    def claim(self, number: int, ticket: bytes) -> bool:
        """Make the attempt of that number this one, unless it is another's; ``ticket`` must be unique."""
        if not self._objects.create(f"{_ATTEMPTS}{number:06d}", ticket):
            return False
        self._attempt, self._ticket = number, ticket
        return True

    def names(self) -> list[str]:
        """The complete checkpoints, newest position first."""
        end = f"/{manifest.NAME}"
        found = [name.removesuffix(end) for name in self._objects.sizes("e") if name.endswith(end)]
        return sorted(filter(NAME.fullmatch, found), reverse=True)

    def fetch(self, name: str, target: Path, *, files: set[str]) -> bool:
        """Make the folder ``target`` hold the checkpoint, every byte hashed; False if it is not there any more.

        Raises VerificationError if it is damaged or holds other ``files``.
        """
        said = self._objects.read(f"{name}/{manifest.NAME}")
        if said is None:
            return False
        aside = durable.make_folder(target.with_name(f"aside-{target.name}"))
        try:
            entries = manifest.parse(said)
            if {entry.path for entry in entries} != files:
                raise VerificationError(f"its manifest names other files than {', '.join(sorted(files))}")
            for entry in entries:
                self._objects.download(f"{name}/{entry.path}", aside / entry.path, sha256=entry.sha256)
        except (ValueError, FileNotFoundError) as error:
            raise VerificationError(f"checkpoint {name} at {self._objects.url} is incomplete: {error}") from error
        durable.sync_tree(aside)
        durable.write_bytes(aside / manifest.NAME, said)
        durable.rename_dir(aside, target)
        return True

    def put(self, folder: Path) -> None:
        """Upload the checkpoint, read it back, and remove what is older than the last two.

        Raises Overtaken when a later attempt has begun, VerificationError when the bytes are not those of the folder.
        """
        entries, name = manifest.read(folder), folder.name
        for entry in entries:
            self._objects.upload(f"{name}/{entry.path}", folder / entry.path, sha256=entry.sha256)
        self.stop_if_superseded()
        self._objects.create(f"{name}/{manifest.NAME}", manifest.render(entries))
        for entry in entries:
            if self._objects.sha256(f"{name}/{entry.path}") != entry.sha256:
                raise VerificationError(f"{self._objects.url}/{name}/{entry.path} was not stored as it was sent")
        self._clear()

    def drop(self, name: str) -> None:
        """Remove a checkpoint; from the first moment on it is incomplete and nobody takes it."""
        self._objects.remove(f"{name}/{manifest.NAME}")
        for file in self._objects.sizes(f"{name}/"):
            self._objects.remove(file)

    def stop_if_superseded(self) -> None:
        """Raises Overtaken unless this attempt is the latest."""
        latest = self.latest_attempt()
        own = self._objects.read(f"{_ATTEMPTS}{self._attempt:06d}") == self._ticket
        stop_if_overtaken(f"at {self._objects.url}", attempt=self._attempt, latest=latest, own=own)

    def _clear(self) -> None:
        """Remove all but the newest two, and what uploads that came to no end left."""
        kept = self.names()[:KEPT]
        found = {name.partition("/")[0] for name in self._objects.sizes("e")}
        self.stop_if_superseded()
        for name in sorted(filter(NAME.fullmatch, found - set(kept))):
            self.drop(name)


class Uploads:
    """Uploads what it is offered, one at a time, in a thread of its own that holds up no end of the process."""

    def __init__(self, shared: SharedCheckpoints) -> None:
        self._shared = shared
        self._guard = threading.Lock()
        self._next: Path | None = None
        self._current: Path | None = None
        self._idle = threading.Event()
        self._idle.set()
        self.overtaken: Overtaken | None = None
        """Set when an upload found that a later attempt has begun."""

    def offer(self, folder: Path) -> None:
        """Upload the checkpoint in this folder after the one under way; one that still waits is left out for it."""
        with self._guard:
            self._next = folder
            if self._idle.is_set():
                self._idle.clear()
                threading.Thread(target=self._run, name="upload", daemon=True).start()

    def needs(self, folder: Path) -> bool:
        """Whether the folder must stay where it is."""
        with self._guard:
            return folder in (self._current, self._next)

    def close(self) -> None:
        """Wait until what was offered last is uploaded, or has failed, for ``LAST_SECONDS`` at most."""
        if not self._idle.wait(LAST_SECONDS):
            log.warning(
                "the last checkpoint was not uploaded within %g s: it is on this machine's disk, and another machine "
                "would go on from the one before",
                LAST_SECONDS,
            )

    def _run(self) -> None:
        while (folder := self._taken()) is not None:
            try:
                self._shared.put(folder)
            except Overtaken as error:
                self.overtaken = error
            except (VitopsError, OSError) as error:
                log.warning("checkpoint %s was not uploaded (the next one will be): %s", folder.name, error)

    def _taken(self) -> Path | None:
        with self._guard:
            self._current, self._next = self._next, None
            if self._current is None:
                self._idle.set()
            return self._current
