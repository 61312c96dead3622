"""What single sections refuse beyond types and ranges, and the frozen surface of the configuration."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from vitops.config.base import KeyProblem, Section, later_field
from vitops.config.compression import Prune
from vitops.config.datasets import Dataset, Gates, LongtailSplit
from vitops.config.models import CifarResNet
from vitops.config.objectives import AttentionTransfer, Nkd, Uskd
from vitops.config.pipelines import AnyPipeline, Compress, Distill, Evaluate, Pipeline, Project, Resources, Retrain
from vitops.config.pretrained import Pretrained
from vitops.config.training import Augment, Mixup, MultiStep, Optimizer, Preprocessing, Recipe, ResizedCrop, Sam, Train

RECIPE = {
    "objective": {"kind": "cross_entropy"},
    "epochs": 3,
    "micro_batch_size": 16,
    "preprocessing": {"size": 32},
    "optimizer": {"name": "sgd", "lr": 0.1},
}
TRAIN = {**RECIPE, "model": {"kind": "cifar_resnet", "depth": 8}}
DEIT = {"kind": "timm", "name": "deit_tiny_distilled_patch16_224"}
DISTILL = {**RECIPE, "model": DEIT, "objective": {"kind": "deit_lt"}}
SMOOTHED = {**RECIPE, "mixup": {"label_smoothing": 0.1}}
COUNTED = {**RECIPE, "micro_batch_size": 8}
BY_ITSELF = {"flow": "distill", "dataset": "d", "split": "s", "student": TRAIN}
SWIN = {"kind": "timm", "name": "swin_tiny_patch4_window7_224"}
GUIDED = {**RECIPE, "objective": {"kind": "nvit"}}
RETRAIN = {
    "flow": "retrain",
    "dataset": "d",
    "split": "s",
    "teacher": TRAIN,
    "student": DISTILL,
    "prune": {"finetune": GUIDED},
}

IMPORTED = {
    "model": {"kind": "cifar_resnet", "depth": 8},
    "preprocessing": {"size": 32},
    "weights": {"file": "a.safetensors", "sha256": "0" * 64},
}
REFUSED = [
    (Gates, {"min_side": 9, "max_side": 8}, "min_side"),
    (Gates, {"labels": ["a", "a"]}, "labels"),
    (Gates, {"labels": ["a", "b"], "classes": 3}, "classes"),
    (LongtailSplit, {"imbalance_factor": 0.02}, "imbalance_factor"),
    (LongtailSplit, {"imbalance_factor": -1}, "imbalance_factor"),
    (LongtailSplit, {"imbalance_factor": 100, "n_max": 99}, "n_max"),
    (Preprocessing, {"size": 224, "resize": 200}, "resize"),
    (Preprocessing, {"size": 32, "std": [1, 0, 1]}, "std"),
    (ResizedCrop, {"scale": [0.9, 0.5]}, "scale"),
    (ResizedCrop, {"scale": [0, 1]}, "scale"),
    (Optimizer, {"name": "adamw", "lr": 1, "betas": [0.9, 1.0]}, "betas"),
    (MultiStep, {"milestones": [3, 2]}, "milestones"),
    (Recipe, {**RECIPE, "micro_batch_size": 15, "mixup": {}}, "micro_batch_size"),
    (Recipe, {**RECIPE, "objective": {"kind": "cross_entropy", "drw": {"epoch": 3}}}, "objective.drw.epoch"),
    (
        Recipe,
        {**RECIPE, "objective": {"kind": "nvit", "distill": {"drw": {"epoch": 3}}}},
        "objective.distill.drw.epoch",
    ),
    (Recipe, {**RECIPE, "schedule": {"kind": "cosine", "warmup_epochs": 3}}, "schedule.warmup_epochs"),
    (
        Train,
        {**TRAIN, "objective": {"kind": "ldam"}, "model": {"kind": "cifar_resnet", "head": "linear"}},
        "model.head",
    ),
    (Train, {**TRAIN, "objective": {"kind": "ldam"}, "model": {"kind": "timm", "name": "vit"}}, "model.head"),
    (Recipe, {**COUNTED, "effective_batch": 24, "micro_batches": 3}, "effective_batch"),
    (Recipe, {**COUNTED, "effective_batch": 20}, "effective_batch"),
    (Optimizer, {"name": "adamw", "lr": 0.1, "nesterov": True}, "nesterov"),
    (Sam, {"later": [{"epoch": 5, "rho": 0.1}, {"epoch": 5, "rho": 0.5}]}, "later"),
    (Distill, {**BY_ITSELF, "teacher": TRAIN}, "teacher"),
    (Distill, {**BY_ITSELF, "student": DISTILL}, "teacher"),
    (Distill, {**BY_ITSELF, "student": {**TRAIN, "micro_batches": 3}}, "student.micro_batches"),
    (Train, {**TRAIN, "objective": {"kind": "deit_lt"}}, "model.kind"),
    (Train, {**TRAIN, "objective": {"kind": "deit_soft"}}, "model.kind"),
    (Train, {**TRAIN, "objective": {"kind": "deit_soft"}, "model": SWIN}, "model.name"),
    (Train, {**TRAIN, "objective": {"kind": "nvit"}, "model": DEIT}, "objective"),
    (Recipe, {**SMOOTHED, "objective": {"kind": "uskd"}}, "mixup.label_smoothing"),
    (Recipe, {**SMOOTHED, "objective": {"kind": "label_smoothing"}}, "mixup.label_smoothing"),
    (Recipe, {**SMOOTHED, "objective": {"kind": "nkd", "label_smoothing": 0.1}}, "mixup.label_smoothing"),
    (Recipe, {**RECIPE, "objective": {"kind": "dkd", "weight": {"start": 0, "end": 1, "epochs": 3}}},
     "objective.weight.epochs"),
    (Nkd, {"temperature": 0}, "temperature"),
    (Nkd, {"temperature": {"start": 4, "end": 0, "epochs": 3}}, "temperature"),
    (Uskd, {"alpha": 0, "beta": 0, "mu": 0}, "alpha"),
    (AttentionTransfer, {"student_taps": [0, 1], "teacher_taps": [1]}, "teacher_taps"),
    (Prune, {"structures": [], "finetune": GUIDED}, "structures"),
    (Prune, {"structures": ["h", "h"], "finetune": GUIDED}, "structures"),
    (Evaluate, {"many": 10, "few": 20}, "few"),
    (Evaluate, {"boundaries": [7, 3]}, "boundaries"),
    (Resources, {"workers": 3}, "workers"),
    (Retrain, {**RETRAIN, "teacher": DISTILL}, "teacher.objective"),
    (Pretrained, {**IMPORTED, "classes": ["a", "a"]}, "classes"),
    (Pretrained, {**IMPORTED, "weights": {"timm": "resnet34.a1_in1k"}}, "model.kind"),
    (Pretrained, {**IMPORTED, "model": {"kind": "timm", "name": "resnet18"}, "weights": {"timm": "resnet34.a1_in1k"}},
     "model.name"),
    (Pretrained, {**IMPORTED, "model": {"kind": "timm", "name": "resnet18", "stem": "small"},
     "weights": {"timm": "resnet18.a1_in1k"}}, "model.stem"),
    (Retrain, {**RETRAIN, "student": {**DISTILL, "objective": {"kind": "nkd", "teachers": {"other": 1}}}},
     "student.objective.teachers"),
    (Retrain, {**RETRAIN, "further_teachers": {"split": "0" * 64}}, "further_teachers.split"),
    (Retrain, {**RETRAIN, "further_teachers": {"other": "0" * 64}, "prune": {"finetune": {**RECIPE, "objective":
        {"kind": "nkd", "teachers": {"other": 1}}}}}, "prune.finetune.objective.teachers"),
    (Retrain, {**RETRAIN, "student": {**DISTILL, "micro_batches": 3}}, "student.micro_batches"),
    (Retrain, {**RETRAIN, "prune": {"finetune": {**GUIDED, "micro_batches": 1}}}, "prune.finetune.micro_batches"),
    (
        Compress,
        {
            "dataset": "d", "split": "s", "student": "0" * 64, "teacher": "1" * 64,
            "prune": {"finetune": {**GUIDED, "micro_batches": 1}},
        },
        "prune.finetune.micro_batches",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("section", "values", "key"), REFUSED)
def test_values_that_contradict_are_refused_by_key(section: type[Section], values: dict, key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        section.model_validate(values)
    problem = caught.value.errors()[0]["ctx"]["error"]
    assert isinstance(problem, KeyProblem) and problem.key == key


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (CifarResNet, {"depth": 10}),
        (Augment, {"randaugment": "augmix-m3"}),
        (Mixup, {"mixup": float("nan")}),
        (Dataset, {"source": {"kind": "folder", "path": ""}, "splits": {"a": {"kind": "holdout"}}}),
        (Dataset, {"source": {"kind": "folder", "path": "x"}, "splits": {}}),
        (LongtailSplit, {"seed": 2**32}),
        (LongtailSplit, {"seed": -1}),
        (Recipe, {**RECIPE, "objective": {"kind": "deit_lt", "alpha": 1.1}}),
        (Recipe, {**RECIPE, "objective": {"kind": "nkd", "gamma": -1}}),
        (Recipe, {**RECIPE, "objective": {"kind": "nkd", "temperature": float("nan")}}),
        (Recipe, {**RECIPE, "objective": {"kind": "kd", "teachers": {}}}),
        (Recipe, {**RECIPE, "objective": {"kind": "kd", "teachers": {"a.b": 1}}}),
        (Recipe, {**RECIPE, "objective": {"kind": "kd", "teachers": {"teacher": 0}}}),
        (Recipe, {**RECIPE, "objective": {"kind": "uskd", "mu": -1}}),
        (Recipe, {**RECIPE, "objective": {"kind": "uskd", "rank_mode": "text"}}),
        (Recipe, {**RECIPE, "objective": {"kind": "deit_lt", "teacher_size": 7}}),
        (Recipe, {**RECIPE, "objective": {"kind": "cross_entropy", "drw": {"epoch": 1, "beta": 1.0}}}),
        (Recipe, {**RECIPE, "repeats": 0}),
        (Prune, {"target": 0, "finetune": GUIDED}),
        (Prune, {"groups_per_round": 0, "finetune": GUIDED}),
        (Prune, {"eta_rel": -1, "finetune": GUIDED}),
    ],
)
def test_values_out_of_range_are_refused(section: type[Section], values: dict) -> None:
    with pytest.raises(ValidationError):
        section.model_validate(values)


def test_the_valid_forms_of_these_sections_pass() -> None:
    Retrain.model_validate(RETRAIN)
    LongtailSplit(imbalance_factor=100, n_max=100)
    Gates(labels=("a", "b"), classes=2)
    assert [CifarResNet(depth=depth).depth for depth in (8, 14, 20, 32)] == [8, 14, 20, 32]


def test_a_later_field_in_its_neutral_value_changes_no_parameters_but_a_default_does() -> None:
    class Old(Section):
        rate: float = 0.5

    class New(Section):
        rate: float = 0.5
        extra: int = later_field(0)

    assert Old().parameters() == New().parameters() == {"rate": 0.5}
    assert New(extra=1).parameters() == {"rate": 0.5, "extra": 1}


def test_an_effective_batch_is_so_many_micro_batches_in_parameters_too() -> None:
    spelled = Recipe.model_validate({**COUNTED, "micro_batches": 3})
    for text in (json.dumps({**COUNTED, "effective_batch": 24}), json.dumps({**COUNTED, "micro_batches": 3})):
        found = Recipe.model_validate_json(text, strict=True)
        assert found.micro_batches == 3 and found.parameters() == spelled.parameters()


def test_the_radius_of_sam_is_the_newest_that_has_begun() -> None:
    sam = Sam.model_validate({"rho": 0.05, "later": [{"epoch": 5, "rho": 0.1}, {"epoch": 60, "rho": 0.5}]})
    assert [sam.at(epoch) for epoch in (0, 4, 5, 59, 60, 89)] == [0.05, 0.05, 0.1, 0.1, 0.5, 0.5]
    assert Sam(rho=0.8).at(199) == 0.8


def test_a_default_written_out_gives_the_same_parameters() -> None:
    pipeline = TypeAdapter(AnyPipeline)
    spelled = {**RETRAIN, "seed": 0, "quantize": {"kind": "static", "images": 256}}
    assert pipeline.validate_python(RETRAIN).parameters() == pipeline.validate_python(spelled).parameters()


def test_the_surface_of_the_configuration_is_frozen() -> None:
    common = {"dataset", "split", "seed", "resources"}
    after = {"prune", "export", "quantize", "evaluate", "report"}
    assert set(Project.model_fields) == {"datasets", "pipelines"}
    assert set(Dataset.model_fields) == {"task", "source", "shard_size", "gates", "splits"}
    assert set(Pipeline.model_fields) == common
    assert set(Retrain.model_fields) == common | after | {"flow", "teacher", "further_teachers", "student"}
    assert set(Distill.model_fields) == common | {"flow", "teacher", "further_teachers", "student", "evaluate"}
    assert set(Compress.model_fields) == common | after | {"flow", "teacher", "student"}
    assert set(Resources.model_fields) == {
        "launcher", "workers", "min_workers", "node_deadline_seconds", "threads", "mode", "device",
        "checkpoint_seconds", "checkpoint_steps", "teacher_cache_gib",
    }  # fmt: skip
    assert set(Train.model_fields) - set(Recipe.model_fields) == {"model"}
    assert set(Recipe.model_fields) == {
        "objective", "epochs", "micro_batches", "micro_batch_size", "repeats", "preprocessing", "augment", "mixup",
        "optimizer", "schedule", "sam", "clip_grad", "ema", "effective_batch",
    }  # fmt: skip
