import json
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image

from vitops.config.training import Preprocessing
from vitops.data.kinds import kind
from vitops.errors import UsageError, VerificationError
from vitops.packaging.predict import PackagePredictor, predict
from vitops.packaging.preprocess import Preprocess


def picture(path, *, size=(37, 23), mode="RGB", seed=0):
    channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(), mode).save(path)
    return path


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [None, 8, 11])
@pytest.mark.parametrize(("size", "mode"), [((37, 23), "RGB"), ((5, 31), "RGB"), ((8, 8), "L"), ((40, 40), "RGBA")])
def test_preprocessing_equals_the_training_side_bit_for_bit(tmp_path, interpolation, resize, size, mode):
    section = Preprocessing(size=8, resize=resize, interpolation=interpolation)
    file = picture(tmp_path / "x.png", size=size, mode=mode)
    classification = kind("classification")
    expected = classification.eval_batch(section)([classification.decode(file.read_bytes())], np.zeros(1, np.int64))
    document = Preprocess(8, section.mean, section.std, interpolation, resize).to_json()
    with Image.open(file) as image:
        found = Preprocess.from_json(json.loads(json.dumps(document)))(image)
    assert torch.equal(torch.from_numpy(found), expected["input"])


def test_prediction_is_the_softmax_of_the_int8_file_by_default(make_package, tmp_path):
    package, file = make_package().path, picture(tmp_path / "x.png")
    predictor = PackagePredictor(package)
    found = predictor.predict(file, top=7)
    with Image.open(file) as image:
        x = predictor.preprocess(image)
    for name, expected in (("model.int8.onnx", True), ("model.onnx", False)):
        logits = ort.InferenceSession(package / name).run(None, {"image": x})[0][0]
        probabilities = torch.softmax(torch.from_numpy(logits).double(), 0)
        assert np.allclose([g.probability for g in found.guesses], probabilities.sort(descending=True)[0]) is expected
    assert sum(guess.probability for guess in found.guesses) == pytest.approx(1)
    assert [g.name for g in found.guesses] == [predictor.classes[g.label] for g in found.guesses]


def test_fp32_runs_the_other_file(make_package, tmp_path):
    package, file = make_package().path, picture(tmp_path / "x.png")
    (package / "model.int8.onnx").unlink()
    assert len(predict(package, [file], model="fp32")[0].guesses) == 5


@pytest.mark.parametrize("name", ["model.int8.onnx", "preprocessing.json", "model.json"])
def test_nothing_runs_when_a_used_file_was_altered(make_package, name):
    package = make_package().path
    data = bytearray((package / name).read_bytes())
    data[len(data) // 2] ^= 1
    (package / name).write_bytes(data)
    with pytest.raises(VerificationError, match=name.replace(".", r"\.")):
        PackagePredictor(package)


def test_a_bad_image_is_named_in_one_paragraph(make_package, tmp_path):
    package = make_package().path
    whole = picture(tmp_path / "whole.png", size=(64, 64)).read_bytes()
    cases = {"truncated.png": whole[: len(whole) // 2], "text.png": b"hello", "empty.jpg": b""}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match=name.replace(".", r"\.")) as caught:
            predict(package, [tmp_path / name])
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"absent\.png"):
        predict(package, [tmp_path / "absent.png"])


def test_a_path_with_control_characters_is_escaped_in_the_error(make_package, tmp_path):
    with pytest.raises(UsageError) as caught:
        predict(make_package().path, [tmp_path / "evil\x1b[2J.png"])
    assert "\x1b" not in str(caught.value) and "\\x1b" in str(caught.value)


def test_prediction_does_not_import_torch(make_package, tmp_path):
    package, file = make_package().path, picture(tmp_path / "x.png")
    code = (
        "import sys; from pathlib import Path; from vitops.packaging.predict import predict; "
        f"predict(Path({str(package)!r}), [Path({str(file)!r})]); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'prefect', 'ray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 1},
        {"interpolation": "nearest"},
        {"mean": [0.5]},
        {"size": "big"},
        {"std": None},
        {"std": [0, 1, 1]},
        {"size": 10**9},
    ],
)
def test_preprocessing_that_is_not_understood_is_refused(change):
    document = Preprocess(8, (0.5,) * 3, (0.5,) * 3, "bicubic").to_json()
    with pytest.raises(VerificationError, match=r"preprocessing\.json"):
        Preprocess.from_json(document | change)
