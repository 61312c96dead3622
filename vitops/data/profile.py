"""What is measured on each stored image: size, mode, pixel digest, brightness, entropy, perceptual hash.

Laws: a profile is a function of the bytes alone, the same on every CPU (integers wherever a bit could hang on the last
digit); an image that does not decode keeps its row, with the reason and no path of this machine in it.
"""

import hashlib
import io
import math
import multiprocessing
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.pool import Pool

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vitops.data.pixels import rgb
from vitops.data.tied import die_with_parent

MAX_PIXELS = 64_000_000
FEW = 4096
"""Below this many images starting processes costs more than it saves."""
_HASH_SIDE, _HASH_KEPT = 32, 8


@dataclass(frozen=True)
class Profile:
    """None where the image does not decode; then ``error`` says why."""

    width: int | None = None
    height: int | None = None
    mode: str | None = None
    pixel_sha256: str | None = None
    mean: float | None = None
    entropy: float | None = None
    phash: int | None = None
    error: str = ""


def profile(data: bytes) -> Profile:
    """The profile of one encoded image (JPEG or PNG)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
                if image.width * image.height > MAX_PIXELS:
                    return Profile(error=f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
                image.load()
                return _measured(image)
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        Image.DecompressionBombError,
    ) as error:
        return Profile(error=_reason(error))


class Profiler:
    """Profiles batches of images, by as many processes as there are cores if there are many images.

    Use it as a context manager. ``submit`` returns at once; calling what it returns waits for the batch's profiles,
    which stand in the order of its images.
    """

    def __init__(self, count: int) -> None:
        self._processes = os.cpu_count() or 1 if count >= FEW else 1
        self._pool: Pool | None = None

    def __enter__(self) -> "Profiler":
        if self._processes > 1:
            self._pool = multiprocessing.get_context("spawn").Pool(self._processes, die_with_parent, (os.getpid(),))
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()

    def submit(self, images: list[bytes]) -> Callable[[], list[Profile]]:
        """Begin to profile a batch."""
        if self._pool is None:
            done = [profile(data) for data in images]
            return lambda: done
        return self._pool.map_async(profile, images, chunksize=64).get


def perceptual_hash(luma: Image.Image) -> int:
    """64-bit DCT hash of a greyscale image: which of the 8 x 8 lowest frequencies lie above their median."""
    small = luma if luma.size == (_HASH_SIDE,) * 2 else luma.resize((_HASH_SIDE,) * 2, Image.Resampling.BOX)
    basis = _cosines()
    frequencies = basis @ np.asarray(small, dtype=np.int64) @ basis.T  # (8, 32) (32, 32) (32, 8)
    flat = frequencies.ravel()
    median = np.sort(flat[1:])[len(flat) // 2 - 1]  # of the 63 without the constant one
    return int.from_bytes(np.packbits(flat > median).tobytes(), "big")


def _measured(image: Image.Image) -> Profile:
    pixels, luma = rgb(image).tobytes(), image.convert("L")
    total = int(np.frombuffer(pixels, np.uint8).sum(dtype=np.int64))
    return Profile(
        width=image.width,
        height=image.height,
        mode=image.mode,
        pixel_sha256=hashlib.sha256(pixels).hexdigest(),
        mean=round(total / len(pixels) / 255, 6),
        entropy=round(_entropy(luma.histogram()), 6),
        phash=perceptual_hash(luma),
    )


def _entropy(histogram: list[int]) -> float:
    """Bits per pixel of the brightness distribution, 0 to 8."""
    total = sum(histogram)
    return 0.0 - sum(count / total * math.log2(count / total) for count in histogram if count)


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.int64]:
    """The 8 lowest rows of the DCT-II of length 32, in units of 2^-14."""
    rows = [
        [round(math.cos(math.pi * (2 * x + 1) * k / (2 * _HASH_SIDE)) * 2**14) for x in range(_HASH_SIDE)]
        for k in range(_HASH_KEPT)
    ]
    return np.array(rows, dtype=np.int64)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG or PNG image"
    return re.sub(r"<[^>]*>", "image", f"{error}") or type(error).__name__
