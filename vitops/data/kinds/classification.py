"""One image, one label: the only file that knows an image classification sample."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_pil_interp
from torch import Tensor

from vitops.config.training import PadCrop, Preprocessing, Recipe, ResizedCrop
from vitops.data.accuracy import class_groups, score
from vitops.data.kinds import Decoded, EvalBatch, Labels, Sample, TrainBatch
from vitops.data.pixels import rgb
from vitops.data.transforms import each, fit, normalise, random_flip, random_pad_crop


class Classification:
    """Decoding, transforms, metrics and export inputs of image classification.

    A sample is ``input`` (B, 3, H, W) float32, ``target`` (B,) int64 and, when mixed, ``mixed`` (B, C) float32.
    """

    def decode(self, data: bytes) -> Decoded:
        """JPEG or PNG bytes as (H, W, 3) uint8. Raises ValueError when they cannot be decoded."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
                    return np.array(rgb(image))
        except (OSError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(str(error)) from error

    def train_batch(self, recipe: Recipe, *, classes: int) -> TrainBatch:
        """Crop, flip, RandAugment, normalise, erase, mix: in timm's order."""
        return _Training(recipe, classes=classes)

    def eval_batch(self, preprocessing: Preprocessing) -> EvalBatch:
        """Resize, centre crop, normalise."""

        def batch(images: Sequence[Decoded], labels: Labels) -> Sample:
            pixels = np.stack([fit(image, preprocessing) for image in images])  # (B, H, W, 3)
            return _collate(pixels, labels, preprocessing)

        return batch

    def groups(self, train_counts: Sequence[int], **thresholds: Any) -> dict[str, list[int]]:
        """Classes with many, a medium number of and few training images: see ``class_groups``."""
        return class_groups(train_counts, **thresholds)

    def score(
        self, output: Tensor, target: Tensor, *, train_counts: Sequence[int], **thresholds: Any
    ) -> dict[str, Any]:
        """Accuracy of logits (N, C) against class indices (N,): see ``vitops.data.accuracy``."""
        return score(output, target, train_counts=train_counts, **thresholds)

    def export_inputs(self, preprocessing: Preprocessing) -> dict[str, tuple[int, ...]]:
        """One image."""
        return {"image": (3, preprocessing.size, preprocessing.size)}


class _Training:
    def __init__(self, recipe: Recipe, *, classes: int) -> None:
        augment = recipe.augment
        self._preprocessing = recipe.preprocessing
        self._crop, self._flip = augment.crop, augment.flip
        self._place = _placement(recipe)
        self._policy = _policy(augment.randaugment, recipe.preprocessing) if augment.randaugment else None
        self._erase = RandomErasing(augment.erasing, mode="pixel", device="cpu") if augment.erasing else None
        self._mix = _mixup(recipe, classes) if recipe.mixup else None

    def __call__(self, images: Sequence[Decoded], labels: Labels, *, mix: bool) -> Sample:
        sample = _collate(self._pixels(images), labels, self._preprocessing)
        if self._erase is not None:
            sample["input"] = self._erase(sample["input"])
        if mix and self._mix is not None:
            sample["input"], sample["mixed"] = self._mix(sample["input"], sample["target"])
        return sample

    def _pixels(self, images: Sequence[Decoded]) -> Decoded:
        pixels = np.stack([self._place(image) for image in images])  # (B, H, W, 3)
        if isinstance(self._crop, PadCrop):
            pixels = random_pad_crop(pixels, self._crop.padding)
        if self._flip:
            pixels = random_flip(pixels, self._flip)
        if self._policy is not None:
            pixels = np.stack(each(list(pixels), self._policy))
        return pixels


def _placement(recipe: Recipe) -> Callable[[Decoded], Decoded]:
    """What brings one image to the input size: a random area, or the evaluation geometry."""
    crop, preprocessing = recipe.augment.crop, recipe.preprocessing
    if not isinstance(crop, ResizedCrop):
        return lambda image: fit(image, preprocessing)
    random_area = RandomResizedCropAndInterpolation(
        preprocessing.size, scale=crop.scale, interpolation=preprocessing.interpolation
    )
    return lambda image: each([image], random_area)[0]


def _policy(name: str, preprocessing: Preprocessing) -> RandAugment:
    """timm's RandAugment with the constants that its own transform factory derives from size and mean."""
    constants = {
        "translate_const": int(preprocessing.size * 0.45),
        "img_mean": tuple(min(255, round(255 * value)) for value in preprocessing.mean),
        "interpolation": str_to_pil_interp(preprocessing.interpolation),
    }
    policy: RandAugment = rand_augment_transform(name, constants)
    for operation in policy.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return policy


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Keep the highest ``bits`` of each channel; none at full strength, where timm's operation asks Pillow for 0 bits.

    Pillow 13 refuses 0; earlier versions gave a black image, which the papers' recipes were trained with.
    """
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


def _mixup(recipe: Recipe, classes: int) -> Mixup:
    assert recipe.mixup is not None
    return Mixup(
        mixup_alpha=recipe.mixup.mixup,
        cutmix_alpha=recipe.mixup.cutmix,
        prob=recipe.mixup.probability,
        switch_prob=recipe.mixup.switch,
        label_smoothing=recipe.mixup.label_smoothing,
        num_classes=classes,
    )


def _collate(pixels: Decoded, labels: Labels, preprocessing: Preprocessing) -> Sample:
    images = normalise(pixels, mean=preprocessing.mean, std=preprocessing.std)
    return {"input": images, "target": torch.from_numpy(np.asarray(labels, dtype=np.int64))}
