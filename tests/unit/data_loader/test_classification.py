"""The classification kind: decoding and transforms."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vitops.config.pipelines import Evaluate
from vitops.config.training import Preprocessing, Recipe
from vitops.data.keyed import seeded
from vitops.data.kinds import kind
from vitops.data.transforms import fit, random_flip, random_pad_crop

KIND = kind("classification")


def recipe(**augment):
    return Recipe(
        objective={"kind": "cross_entropy"},
        epochs=1,
        micro_batch_size=4,
        preprocessing={"size": 16},
        augment=augment,
        optimizer={"name": "sgd", "lr": 0.1},
    )


def encoded(pixels, form="PNG"):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, form)
    return data.getvalue()


def test_grey_and_colour_decode_to_rgb():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(KIND.decode(encoded(grey)), np.repeat(grey[..., None], 3, axis=2))
    colour = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    assert np.array_equal(KIND.decode(encoded(colour)), colour)


@pytest.mark.parametrize("data", [b"", b"no image", encoded(np.zeros((9, 9, 3), np.uint8), "JPEG")[:200]])
def test_what_cannot_be_decoded_is_an_error(data):
    with pytest.raises(ValueError, match=r"identify|[Tt]runcated|broken"):
        KIND.decode(data)


def test_a_format_outside_the_members_is_refused():
    with pytest.raises(ValueError, match="cannot identify"):
        KIND.decode(encoded(np.zeros((8, 8, 3), np.uint8), "BMP"))


def test_the_evaluation_geometry():
    image = np.zeros((20, 40, 3), np.uint8)
    assert fit(image, Preprocessing(size=16)).shape == (16, 16, 3)
    assert fit(image, Preprocessing(size=16, resize=20)).shape == (16, 16, 3)
    same = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    assert fit(same, Preprocessing(size=16)) is same


def test_a_pad_crop_shows_a_window_of_the_padded_image():
    images = np.full((200, 8, 8, 3), 9, np.uint8)
    with seeded("crop"):
        cropped = random_pad_crop(images, 2)
    assert cropped.shape == images.shape
    filled = {int((image[..., 0] == 9).sum()) for image in cropped}
    assert filled <= {(8 - a) * (8 - b) for a in range(3) for b in range(3)}
    assert {36, 64} <= filled


def test_a_flip_mirrors_about_the_asked_share():
    images = np.zeros((1000, 2, 2, 3), np.uint8)
    images[:, :, 0] = 1
    with seeded("flip"):
        flipped = random_flip(images, 0.3)[:, 0, 1, 0].sum()
    assert 240 < flipped < 360


def test_randaugment_at_full_strength_never_fails():
    """Posterize with no bits left is refused by Pillow and asked for by timm's policy."""
    images = [np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)] * 8
    batch = KIND.train_batch(recipe(randaugment="rand-m10-n4-inc1"), classes=2)
    for number in range(40):
        with seeded(number):
            assert torch.isfinite(batch(images, np.zeros(8, np.int64), mix=False)["input"]).all()


def test_scores_and_groups_follow_the_evaluate_section():
    thresholds = dict(Evaluate(many=9, few=5, boundaries=(1, 2)))
    logits, counts = torch.eye(3)[[0, 1, 0]], [10, 7, 4]
    scores = KIND.score(logits, torch.arange(3), train_counts=counts, **thresholds)
    assert [scores[group] for group in ("many", "medium", "few", "tail")] == [100.0, 100.0, 0.0, 0.0]
    assert KIND.groups(counts, **thresholds)["many"] == [0]


def test_export_inputs_name_one_image():
    assert KIND.export_inputs(Preprocessing(size=32)) == {"image": (3, 32, 32)}


def test_an_unknown_kind_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown task kind 'video'; known: classification"):
        kind("video")
