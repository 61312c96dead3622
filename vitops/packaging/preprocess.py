"""From a decoded image to the model's input with numpy and Pillow alone.

Law: the same bits as ``fit`` and ``normalise`` of vitops.data.transforms, which a test holds; written again because a
package runs without torch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitops.errors import VerificationError

CHANNELS = 3
LARGEST = 4096
"""Side in pixels beyond which no model of ours goes."""
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocess:
    """What preprocessing.json says. ``resize``: shorter side before a centre crop; None scales straight to ``size``."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize: int | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Preprocess":
        """Raises VerificationError when a field is missing or has a value this version does not know."""
        try:
            found = cls(
                size=int(document["size"]),
                mean=tuple(document["mean"]),
                std=tuple(document["std"]),
                interpolation=document["interpolation"],
                resize=document.get("resize"),
            )
            channels = document["channels"]
        except (KeyError, TypeError, ValueError) as error:
            raise VerificationError(f"preprocessing.json is incomplete: {error!r}") from error
        if channels != CHANNELS or len(found.mean) != CHANNELS or len(found.std) != CHANNELS:
            raise VerificationError(f"preprocessing.json: expected {CHANNELS} channels, mean and std, got {document}")
        sides = [found.size] if found.resize is None else [found.size, found.resize]
        if not all(isinstance(side, int) and 0 < side <= LARGEST for side in sides) or min(found.std) <= 0:
            raise VerificationError(f"preprocessing.json: sizes must be 1..{LARGEST} and std positive, got {document}")
        if found.interpolation not in _FILTERS:
            raise VerificationError(f"preprocessing.json: unknown interpolation {found.interpolation!r}")
        return found

    def to_json(self) -> dict[str, Any]:
        """The document that ``from_json`` reads; ``resize`` only where it is set."""
        document: dict[str, Any] = {
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "channels": CHANNELS,
        }
        return document if self.resize is None else document | {"resize": self.resize}

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """RGB values of ``image`` scaled, divided by 255 and normalised: (1, 3, size, size) float32."""
        pixels = np.asarray(self._fitted(image.convert("RGB")), dtype=np.float32)  # (H, W, 3) in 0..255
        shift, width = (np.float32(255) * np.asarray(values, np.float32) for values in (self.mean, self.std))
        return np.ascontiguousarray(((pixels - shift) / width).transpose(2, 0, 1)[None])  # (1, 3, H, W)

    def _fitted(self, image: Image.Image) -> Image.Image:
        if self.resize is None:
            return self._scaled(image, (self.size, self.size))
        short = min(image.size)
        sides = [max(self.size, round(side * self.resize / short)) for side in image.size]  # width, height
        left, top = ((side - self.size) // 2 for side in sides)
        return self._scaled(image, (sides[0], sides[1])).crop((left, top, left + self.size, top + self.size))

    def _scaled(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return image if image.size == size else image.resize(size, _FILTERS[self.interpolation])
