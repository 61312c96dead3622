"""Samples from an ``.npz`` file of arrays, each turned into a PNG whose bytes depend on its pixels alone."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitops.config.datasets import ArraysSource
from vitops.data.sources import png
from vitops.data.sources.items import Item, Reader, settled
from vitops.errors import UsageError, VitopsError


class ArraysReader:
    """Sample i has the path ``<label>/<i:08d>.png`` and the class name ``<label>``."""

    def __init__(self, config: ArraysSource, root: Path) -> None:
        self._config = config
        self._file = root / config.path

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def items(self) -> list[Item]:
        """All samples, sorted by path."""
        images, labels = self._load()
        names = [str(label) for label in labels.tolist()]
        found = [
            Item(f"{name}/{number:08d}.png", name, "", "png", self._loader(images[number]))
            for number, name in enumerate(names)
        ]
        try:
            return settled(found, ())
        except UsageError as error:
            raise VitopsError(f"{self._config.path}: {error}") from error

    def _load(self) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
        try:
            with np.load(self._file, allow_pickle=False) as arrays:
                images, labels = arrays["images"], arrays["labels"]
        except KeyError as error:
            raise VitopsError(
                f"{self._config.path}: {error.args[0]}: needs images and labels; "
                "write both with numpy.savez(file, images=..., labels=...)"
            ) from error
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, TypeError) as error:
            raise VitopsError(
                f"{self._config.path} cannot be read as an .npz of plain arrays ({error}): "
                "write it again with numpy.savez(file, images=..., labels=...)"
            ) from error
        self._check(images, labels)
        return images, labels

    def _check(self, images: NDArray[np.generic], labels: NDArray[np.generic]) -> None:
        name, maximum = self._config.path, self._config.maximum
        colour = images.ndim == 4 and images.shape[3] in (1, 3)
        if images.dtype != np.uint8 or not (images.ndim == 3 or colour):
            raise VitopsError(
                f"{name}: images must be uint8 (N, H, W) or (N, H, W, 1 or 3), got {images.dtype} {images.shape}"
            )
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1] or (labels < 0).any():  # type: ignore[operator]
            raise VitopsError(
                f"{name}: labels must be {len(images)} integers from 0, got {labels.dtype} {labels.shape}"
            )
        if images.size and int(images.max()) > maximum:
            raise VitopsError(f"{name}: the largest pixel is {images.max()}, but source.maximum says {maximum}")

    def _loader(self, pixels: NDArray[np.uint8]) -> Callable[[], bytes]:
        return lambda: png.encode(self._scaled(pixels))

    def _scaled(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        maximum, size = self._config.maximum, self._config.image_size
        full = ((pixels.astype(np.uint16) * 255 + maximum // 2) // maximum).astype(np.uint8)
        if full.ndim == 3 and full.shape[2] == 1:
            full = full[:, :, 0]
        if size is None:
            return full
        return np.asarray(Image.fromarray(full).resize((size, size), Image.Resampling.BICUBIC))
