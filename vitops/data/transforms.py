"""Image transforms on decoded uint8 arrays: geometry on single images, everything else on whole batches.

Legend: B batch, H height, W width, all images RGB with the channel last until ``normalise``.
Random draws come from the global state of numpy, ``random`` and torch, which the caller seeds.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vitops.config.training import Preprocessing, Triple

Bytes = npt.NDArray[np.uint8]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def fit(image: Bytes, preprocessing: Preprocessing) -> Bytes:
    """Bring one image (H, W, 3) to (size, size, 3): the evaluation geometry, used by ``vitops predict`` as well."""
    size, resize = preprocessing.size, preprocessing.resize
    if resize is None:
        return scale(image, (size, size), preprocessing.interpolation)
    height, width = image.shape[:2]
    short = min(height, width)
    scaled = (max(size, round(height * resize / short)), max(size, round(width * resize / short)))
    return centre_crop(scale(image, scaled, preprocessing.interpolation), size)


def scale(image: Bytes, size: tuple[int, int], interpolation: str) -> Bytes:
    """Resize (H, W, 3) to ``size`` = (height, width) with Pillow's antialiased filter; equal sizes pass untouched."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], _FILTERS[interpolation]))


def centre_crop(image: Bytes, size: int) -> Bytes:
    """The central (size, size, 3) of an image at least that large."""
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def random_pad_crop(images: Bytes, padding: int) -> Bytes:
    """Pad (B, H, W, 3) with zeros on every side, then cut one random window of the old size from each image."""
    count, height, width = images.shape[:3]
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    tops = np.random.randint(0, 2 * padding + 1, size=(count,))
    lefts = np.random.randint(0, 2 * padding + 1, size=(count,))
    corners = zip(tops.tolist(), lefts.tolist(), strict=True)
    windows = [padded[i, top : top + height, left : left + width] for i, (top, left) in enumerate(corners)]
    return np.stack(windows)  # (B, H, W, 3)


def random_flip(images: Bytes, probability: float) -> Bytes:
    """Mirror each image of (B, H, W, 3) from left to right with ``probability``."""
    chosen = np.random.random(len(images)) < probability
    images[chosen] = images[chosen, :, ::-1]
    return images


def each(images: Sequence[Bytes], transform: Callable[[Image.Image], Image.Image]) -> list[Bytes]:
    """Apply a Pillow transform to every image in turn."""
    return [np.asarray(transform(Image.fromarray(image))) for image in images]


def normalise(images: Bytes, *, mean: Triple, std: Triple) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32, (x / 255 - mean) / std per channel."""
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    shift, width = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return batch.sub_(shift).div_(width)
