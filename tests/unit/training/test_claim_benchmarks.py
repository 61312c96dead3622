"""benchmarks/claims: each script's protocol at toy size from the archive to the verdict, and what a verdict is."""

import ast
import importlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitops.models.counting import parameters
from vitops.models.registry import build

CLAIMS = Path(__file__).resolve().parents[3] / "benchmarks/claims"
CLASSES, TRAIN, TEST, SIDE = 10, 8, 2, 16


@pytest.fixture(scope="module")
def scripts():
    """The modules of the folder by name, imported as a script there imports its neighbour."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CLAIMS)
        names = ("trials", "deit_lt", "nkd_uskd")
        yield {name: importlib.import_module(name) for name in names}
        for name in names:
            del sys.modules[name]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Ten classes of noise around a colour of their own."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("archive") / "pictures.tar"
    with tarfile.open(path, "w") as tar:
        for label in range(CLASSES):
            for number in range(TRAIN + TEST):
                pixels = rng.integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[..., label % 3] += np.uint8(15 * label)
                data = io.BytesIO()
                Image.fromarray(pixels).save(data, "PNG")
                subset = "train" if number < TRAIN else "test"
                member = tarfile.TarInfo(f"toy/{subset}/class{label}/{number}.png")
                member.size = len(data.getvalue())
                tar.addfile(member, io.BytesIO(data.getvalue()))
    return path


def small(script):
    """The script's size for a CPU with a toy's budget."""
    budget = {"side": 8, "teacher_epochs": 10, "batch": 8}
    if script.__name__ == "deit_lt":
        shape = {"teacher_batch": 8, "width": 16, "depth": 1, "epochs": 5, "warmup": 1}
        return replace(script.CPU, n_max=TRAIN, imbalance_factor=4, **budget, **shape)
    return replace(script.CPU, teacher_images=TRAIN, images=4, epochs=2, **budget)


def measured(script, archive, results, *, size=None, seeds=(0,)):
    return script.measure(size or small(script), data=archive, results=results, seeds=list(seeds), device="cpu")


@pytest.mark.parametrize("name", ["deit_lt", "nkd_uskd"])
def test_a_script_starts_in_a_process_of_its_own(name):
    done = subprocess.run([sys.executable, CLAIMS / f"{name}.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--results" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["deit_lt", "nkd_uskd"])
def test_a_script_measures_every_pair_once_and_tells_every_gap(scripts, archive, tmp_path, name):
    script, results = scripts[name], tmp_path / "results.jsonl"
    told = measured(script, archive, results)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["configuration"] for line in lines] == list(told["accuracy"])
    assert told["gaps"].keys() == script.gaps("cpu").keys()
    assert told["holds"] is None, "one seed is no verdict"
    before = results.read_bytes()
    assert measured(script, archive, results) == told
    assert results.read_bytes() == before


def test_a_pair_without_its_line_comes_out_the_same_with_the_kept_teacher(scripts, archive, tmp_path):
    results = tmp_path / "results.jsonl"
    whole = measured(scripts["nkd_uskd"], archive, results)
    lines = results.read_text().splitlines(keepends=True)
    results.write_text("".join(lines[:3]) + lines[3][:20])
    again = measured(scripts["nkd_uskd"], archive, results)
    assert (again["accuracy"], again["gaps"]) == (whole["accuracy"], whole["gaps"])


def test_results_of_another_budget_are_refused(scripts, archive, tmp_path):
    script, results = scripts["nkd_uskd"], tmp_path / "results.jsonl"
    measured(script, archive, results)
    with pytest.raises(SystemExit, match="another protocol"):
        measured(script, archive, results, size=replace(small(script), epochs=3))


def test_the_students_pictures_are_among_the_teachers(scripts, archive):
    opened = scripts["trials"].Archive(archive)
    more, fewer = (opened.train(side=SIDE, n_max=images) for images in (6, 3))
    assert (more.counts, fewer.counts) == ((6,) * CLASSES, (3,) * CLASSES)
    assert {image.tobytes() for image in fewer.images} < {image.tobytes() for image in more.images}


def test_averaged_pixels_are_means_of_squares(scripts):
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    found = scripts["trials"].averaged(image, side=2)
    assert found[1, 0].tolist() == [round(float(value)) for value in image[2:, :2].mean((0, 1))]


def test_students_of_deit_lt_differ_in_nothing_but_their_objective(scripts, archive):
    script = scripts["deit_lt"]
    pictures = scripts["trials"].Archive(archive).train(side=SIDE, n_max=TRAIN)
    rows = script.configurations(script.CPU, pictures)
    students = [rows[name].train.parameters() for name in ("ViT", "DeiT", "DeiT-LT", script.WITHOUT_SAM)]
    objectives = [student.pop("objective") for student in students]
    assert all(student == students[0] for student in students)
    assert [objective["drw"]["epoch"] for objective in objectives] == [54] * 4
    assert [objective["drw"]["beta"] for objective in objectives] == [0, 0, 0.9999, 0.9999]
    assert [objective["alpha"] for objective in objectives] == [0, 0.5, 0.5, 0.5]


def test_an_accelerators_protocols_build_the_networks_they_name(scripts, archive):
    nkd, lt = scripts["nkd_uskd"], scripts["deit_lt"]
    pictures = scripts["trials"].Archive(archive).train(side=SIDE, n_max=TRAIN)
    rows = nkd.configurations(nkd.CUDA, for_teacher=pictures, pictures=pictures) | {
        f"lt {name}": row for name, row in lt.configurations(lt.CUDA, pictures).items()
    }
    with torch.device("meta"):
        sizes = {name: parameters(build(row.train.model, classes=CLASSES)) for name, row in rows.items()}
    assert (sizes["teacher"], sizes["NKD"]) == (21_282_122, 11_173_962)  # ResNets of torchvision's kind, 3 x 3 stem
    assert sizes["lt teacher"] == 464_144  # ResNet-32, cosine head
    assert len({sizes[f"lt {name}"] for name in ("ViT", "DeiT", "DeiT-LT", lt.WITHOUT_SAM)}) == 1


@pytest.mark.parametrize(
    ("values", "held"), [([1.0, 1.0, 1.0], True), ([0.9, 0.9, 0.9], False), ([4.0, 4.0, -0.1], False)]
)
def test_a_gap_is_held_by_the_mean_and_by_every_seed(scripts, values, held):
    terms = ("NKD", "mean", "overall"), ("CE", "mean", "overall")
    assert scripts["trials"].Gap(*terms, at_least=1.0, each_above=0.0).holds(values) is held
    assert scripts["trials"].Gap(*terms).holds(values) is None


def test_no_claim_has_a_training_loop_of_its_own():
    for path in sorted(CLAIMS.glob("*.py")):
        names = {getattr(node, "attr", getattr(node, "id", None)) for node in ast.walk(ast.parse(path.read_text()))}
        assert not names & {"backward", "autograd", "grad", "zero_grad"}, path
    assert len(list(CLAIMS.glob("*.py"))) == 3
