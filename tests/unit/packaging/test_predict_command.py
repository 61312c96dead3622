import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from vitops.cli.predict import predict
from vitops.errors import UsageError


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(predict)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "digit [red].png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    return path


def test_five_classes_per_image_in_falling_order(run, make_package, image):
    result = run(make_package().path, image, image)
    assert result.exit_code == 0, result.output
    shares = [float(line.split("%")[0].split()[-1]) for line in result.stdout.splitlines() if "%" in line]
    assert len(shares) == 10
    assert shares[:5] == sorted(shares[:5], reverse=True)


def test_names_and_paths_are_shown_literally_without_control_characters(run, make_package, image):
    output = run(make_package().path, image).stdout
    assert "\x1b" not in output
    assert str(image) in output.splitlines()
    assert "t\\x1b[31mwo" in run(make_package("again").path, image, "--model", "fp32").stdout + output


def test_json_is_one_document_with_the_same_numbers(run, make_package, image):
    document = json.loads(run(make_package().path, image, "--json", "--model", "fp32").stdout)
    assert document["model"] == "fp32"
    (only,) = document["predictions"]
    assert only["image"] == str(image)
    assert [set(guess) for guess in only["top"]] == [{"class", "label", "probability"}] * 5


def test_a_bad_image_prints_no_prediction_at_all(run, make_package, image, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    result = run(make_package().path, image, bad)
    assert isinstance(result.exception, UsageError)
    assert "%" not in result.stdout
