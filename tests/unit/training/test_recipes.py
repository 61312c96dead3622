"""Every recipe of pipelines.yaml, built without memory for a weight: shapes, and the papers' numbers of parameters."""

from pathlib import Path

import pytest
import torch
from torch import nn

from vitops.config.load import load
from vitops.config.pipelines import Distill, Retrain
from vitops.config.training import Train
from vitops.losses import build as build_objective
from vitops.models import build, heads
from vitops.models.counting import parameters
from vitops.training.tree import share

ROOT = Path(__file__).parents[3]
NAMES = load(ROOT).names
CASES = [(name, profile) for name in NAMES for profile in load(ROOT).profiles(name)]
PUBLISHED = {  # student and teacher: section 4 of the methods' descriptions
    "cifar10-lt": (85_815_572, 464_144),
    "cifar100-lt": (85_953_992, 469_904),
    "imagenet-lt": (87_338_192, 25_557_032 - 1000),  # a cosine head has no bias
    "inaturalist18-lt": (98_322_588, 25_557_032 - 1000 + (8142 - 1000) * 2048),
    "imagenet-nkd-resnet18": (11_689_512, 21_797_672),
    "imagenet-nkd-mobilenetv1": (4_231_976, 25_557_032),
    "imagenet-nkd-deit-tiny": (5_717_416, 22_059_496),
    "imagenet-nkd-deit-small": (22_050_664, None),
    "imagenet-nkd-deit-base": (86_567_656, 304_374_760),
    "imagenet-uskd-resnet18": (11_689_512, None),
    "imagenet-uskd-resnet50": (25_557_032, None),
    "imagenet-uskd-resnet101": (44_549_160, None),
    "imagenet-uskd-mobilenetv1": (4_231_976, None),
    "imagenet-uskd-mobilenetv2": (3_504_872, None),
    "imagenet-uskd-regnetx": (9_190_136, None),
    "imagenet-uskd-deit-tiny": (5_717_416, None),
    "imagenet-uskd-swin-tiny": (28_288_354, None),
}
AUXILIARY = {  # USKD's weak head: (D + 1) * C
    "imagenet-uskd-resnet18": 257_000,
    "imagenet-uskd-resnet50": 1_025_000,
    "imagenet-uskd-resnet101": 1_025_000,
    "imagenet-uskd-mobilenetv1": 513_000,
    "imagenet-uskd-mobilenetv2": 321_000,
    "imagenet-uskd-regnetx": 409_000,
    "imagenet-uskd-deit-tiny": 193_000,
    "imagenet-uskd-swin-tiny": 385_000,
    "cifar100-uskd": 25_700,
}
EFFECTIVE = {  # images of a step; the papers' GPUs x batch x accumulation
    "cifar10-lt": 1024,
    "cifar100-lt": 1024,
    "imagenet-lt": 2048,
    "inaturalist18-lt": 2048,
    "imagenet-uskd-resnet18": 256,
    "imagenet-uskd-regnetx": 1024,
    "imagenet-nkd-deit-base": 1024,
    "cifar100-nkd": 128,
}


def configured(name, profile, **options):
    """(pipeline, number of classes) of a recipe."""
    loaded = load(ROOT, profile=profile, **options)
    pipeline = loaded.pipeline(name)
    return pipeline, loaded.dataset(pipeline.dataset).gates.classes


def built(config, classes):
    with torch.device("meta"):
        return build(config.model, classes=classes)


def objective_of(config, model, teacher, classes):
    teachers = {} if teacher is None else {"teacher": teacher}
    with torch.device("meta"):
        return build_objective(config.objective, model=model, teachers=teachers, counts=[100] * classes)


def logits(model: nn.Module, side: int):
    return {
        name: tuple(found.shape) for name, found in heads(model, torch.empty(2, 3, side, side, device="meta")).items()
    }


@pytest.mark.parametrize(("name", "profile"), CASES)
def test_a_recipe_builds_and_answers_in_its_classes(name, profile):
    pipeline, classes = configured(name, profile)
    assert isinstance(pipeline, Retrain | Distill)
    student, teacher = built(pipeline.student, classes), None
    size = pipeline.student.preprocessing.size
    if pipeline.teacher is not None:
        teacher = built(pipeline.teacher, classes)
        shown = getattr(pipeline.student.objective, "teacher_size", None) or size
        assert set(logits(teacher, shown).values()) == {(2, classes)}
        if isinstance(pipeline.teacher, Train):
            objective_of(pipeline.teacher, teacher, None, classes)
    objective_of(pipeline.student, student, teacher, classes)
    expected = {"cls", "dist", "mean"} if pipeline.student.objective.kind == "deit_lt" else {"mean"}
    assert logits(student, size) == dict.fromkeys(expected, (2, classes))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_parameters_that_its_paper_counts(name):
    pipeline, classes = configured(name, "paper")
    student, teacher = PUBLISHED[name]
    assert parameters(built(pipeline.student, classes)) == student
    if teacher is not None:
        assert parameters(built(pipeline.teacher, classes)) == teacher


@pytest.mark.parametrize("name", AUXILIARY)
def test_uskd_adds_one_linear_layer(name):
    pipeline, classes = configured(name, "paper")
    student = built(pipeline.student, classes)
    objective = objective_of(pipeline.student, student, None, classes)
    assert parameters(objective.auxiliary) == AUXILIARY[name]


@pytest.mark.parametrize("name", EFFECTIVE)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_share_the_effective_batch_by_accumulating(name, workers):
    overrides = ("teacher.effective_batch=512",) if name in ("cifar10-lt", "cifar100-lt") else ()
    pipeline, _ = configured(name, "paper", workers=workers, overrides=overrides)
    student = pipeline.student
    shares = [share(student.micro_batches, rank=rank, world=workers) for rank in range(workers)]
    assert len({len(own) for own in shares}) == 1
    assert sum(len(own) for own in shares) * student.micro_batch_size == EFFECTIVE[name]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cifar10-lt"])
def test_the_quick_profile_runs_on_the_data_of_the_project(name):
    pipeline, _ = configured(name, "quick")
    assert pipeline.dataset == "digits" and (ROOT / "data/raw/digits.npz").is_file()
    assert pipeline.resources.workers == 2 and pipeline.resources.device == "cpu"
