"""What teachers said of a micro-batch, kept on disk for reruns and for other objectives on the same stream.

Laws: a training has the same bits with it and without it. An entry is named by all that its images and the answer
follow from: teacher, split, transforms, seed, size, environment, epoch, step and micro-batch; it holds the SHA-256 of
the images and of the answer, and one that is torn, altered or about other images is a miss that is named. Nothing in
here fails a training: a disk that takes no more only ends the writing.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vitops import models
from vitops.config.pipelines import Resources
from vitops.config.training import Recipe
from vitops.errors import VitopsError
from vitops.store import canonical, durable
from vitops.training.environment import facts
from vitops.training.running import Stream

JSON = dict[str, Any]
_LOG = logging.getLogger(__name__)
_NAMED = 5


def stream_of(recipe: Recipe, *, digests: Mapping[str, str], role: str, seed: int, resources: Resources) -> JSON:
    """All that a teacher's answers follow from but the position, as JSON."""
    parts = recipe.parameters()
    transforms = ("preprocessing", "augment", "mixup", "repeats", "micro_batches", "micro_batch_size")
    return {
        "teacher": digests[role],
        "split": digests["split"],
        "transforms": {name: parts.get(name) for name in transforms},
        "seed": seed,
        "mode": resources.mode,
        "environment": facts(resources.device) | {"timm": timm.__version__, "models": _models_code()},
    }


class Positioned:
    """A stream whose samples say where they stand: ``position`` is (epoch, step, micro-batch, mixed or not), int64."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self.steps_per_epoch = stream, stream.steps_per_epoch

    def micro_batch(self, epoch: int, step: int, m: int, *, mix: bool) -> dict[str, Tensor]:
        """Micro-batch ``m`` of a step."""
        found = self._stream.micro_batch(epoch, step, m, mix=mix)
        return {**found, "position": torch.tensor([epoch, step, m, int(mix)])}


class TeacherCache:
    """The answers of one teacher to one stream, in a folder of its own below ``root``."""

    def __init__(self, root: Path, stream: JSON, *, limit: int, world: int = 1) -> None:
        """``limit``: bytes that all streams below ``root`` may take, of which each of ``world`` ranks fills a share.

        Streams that were used the longest ago are removed until the others keep half of the limit at most.
        """
        self._folder = root / canonical.digest(stream)
        self.hits, self.asked, self.damaged = 0, 0, list[str]()
        self._left = (limit - _others(root, self._folder, limit // 2) - _size(self._folder)) // world

    def logits(self, images: Tensor, position: Tensor, *, view: JSON, ask: Callable[[], Tensor]) -> Tensor:
        """The teacher's answer to ``images`` as it is kept, or what ``ask`` returns, which is kept if there is room.

        ``view`` is how the teacher sees the images.
        """
        place = [int(number) for number in position]
        path = self._folder / f"{canonical.digest({'position': place, 'view': view})}.safetensors"
        seen = _sha256(images)
        self.asked += 1
        known = self._read(path, images=seen)
        if known is not None:
            self.hits += 1
            return known.to(images.device)
        found = ask()
        self._keep(path, found, images=seen)
        return found

    def told(self) -> JSON:
        """``hits`` of how many ``asked``, and the ``damaged`` entries that were misses."""
        return {"hits": self.hits, "asked": self.asked, "damaged": self.damaged[:_NAMED]}

    def _read(self, path: Path, *, images: str) -> Tensor | None:
        try:
            seal, _, body = path.read_bytes().partition(b"\n")
            head, logits = json.loads(seal), load(body)["logits"]
            if head == {"images": images, "logits": _sha256(logits)}:
                return logits.clone()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, SafetensorError):
            pass
        self.damaged.append(path.name)
        _LOG.warning("%s is damaged or about other images: the teacher is asked again", path)
        return None

    def _keep(self, path: Path, logits: Tensor, *, images: str) -> None:
        plain = logits.detach().cpu().contiguous()
        seal = json.dumps({"images": images, "logits": _sha256(plain)}).encode()
        data = seal + b"\n" + save({"logits": plain})
        if len(data) > self._left:
            return
        try:
            durable.make_folder(path.parent)
            durable.write_bytes(path, data, sync=False)
            self._left -= len(data)
        except VitopsError as error:
            self._left = 0
            _LOG.warning("the teacher cache takes no more: %s", error)


def _sha256(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    return hashlib.sha256(plain.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _others(root: Path, own: Path, limit: int) -> int:
    """Remove streams other than ``own``, oldest first, until they take ``limit`` bytes at most; what they then take."""
    with suppress(OSError, VitopsError):  # a folder that cannot be written is noticed by the first entry
        durable.make_folder(own)
        os.utime(own)
    others = sorted((folder for folder in root.glob("*/") if folder != own), key=_used)
    sizes = {folder: _size(folder) for folder in others}
    for folder in others:
        if sum(sizes.values()) <= limit:
            break
        shutil.rmtree(folder, ignore_errors=True)
        del sizes[folder]
    return sum(sizes.values())


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # another worker removed it
        return 0.0


def _size(folder: Path) -> int:
    total = 0
    with suppress(OSError):  # other workers write here, or have removed it
        for entry in os.scandir(folder):
            with suppress(OSError):
                total += entry.stat().st_size
    return total


def _models_code() -> str:
    """SHA-256 over the sources of our own architectures, whose arithmetic no version number tells."""
    found = hashlib.sha256()
    for file in sorted(Path(str(models.__file__)).parent.glob("*.py")):
        found.update(file.name.encode() + b"\n" + file.read_bytes())
    return found.hexdigest()
