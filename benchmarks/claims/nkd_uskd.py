"""NKD against KD and DKD with one teacher, USKD against label smoothing and Tf-KD without any, on CIFAR-10.

Without an accelerator: pictures averaged to 16 x 16 pixels; the student has three convolutions (8, 16, 32 channels) and
sees 200 images of each class for 20 epochs, its teacher is a ResNet-14 and sees 1500 of each class, those included; at
most 10 minutes for each configuration and seed on one core. With one: 32 x 32, the whole training set, ResNet-34 and
ResNet-18 with the stem for small images. Accuracy is that of the last epoch on the whole test set.

    python benchmarks/claims/nkd_uskd.py --data cifar10.tar --results nkd_uskd.jsonl [--seeds 0 1 2] [--device cuda]

The last line is one JSON object; exit code 1 when a bound does not hold. Published gains over cross-entropy: ResNet-34
to ResNet-18 on ImageNet (KD, DKD, NKD, USKD), and ResNet-18 on CIFAR-100 from Tf-KD's repository (smoothing, Tf-KD).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vitops  # noqa: F401 -- first, for it mends torchvision, which timm imports

# isort: split
import timm
import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn
from trials import Archive, Configuration, Gap, Pictures, Trials, arguments, finish

from vitops.config.training import Train

STATISTICS = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.201]}


@dataclass(frozen=True)
class Size:
    """A protocol's budget."""

    side: int
    teacher: dict[str, Any]
    teacher_images: int | None
    """Of each class; None takes all."""
    teacher_epochs: int
    student: dict[str, Any]
    images: int | None
    epochs: int
    batch: int
    lr: float
    with_teacher: dict[str, dict[str, Any]]


SMALL_TEACHERS = {
    "KD": {"kind": "kd", "temperature": 4.0, "alpha": 0.5},
    "DKD": {"kind": "dkd", "temperature": 4.0, "alpha": 1.0, "beta": 2.0},
    "NKD": {"kind": "nkd", "temperature": 1.0, "gamma": 1.5},
}
LARGE_TEACHERS = {
    "KD": {"kind": "kd", "temperature": 3.0, "alpha": 0.5},
    "DKD": {"kind": "dkd", "temperature": 4.0, "alpha": 1.0, "beta": 8.0},
    "NKD": {"kind": "nkd", "temperature": 3.0, "gamma": 3.5},
}
WITHOUT_TEACHER = {
    "CE": {"kind": "cross_entropy"},
    "label smoothing": {"kind": "label_smoothing", "smoothing": 0.1},
    "Tf-KD": {"kind": "tfkd_reg", "alpha": 0.1, "temperature": 20.0, "multiplier": 100.0},
    "USKD": {"kind": "uskd", "alpha": 0.1, "beta": 0.1, "mu": 0.1},
}
CPU = Size(
    side=16,
    teacher={"kind": "cifar_resnet", "depth": 14, "head": "linear"},
    teacher_images=1500,
    teacher_epochs=8,
    student={"kind": "timm", "name": "claims_three_convolutions"},
    images=200,
    epochs=20,
    batch=64,
    lr=0.05,
    with_teacher=SMALL_TEACHERS,
)
CUDA = Size(
    side=32,
    teacher={"kind": "timm", "name": "claims_resnet34"},
    teacher_images=None,
    teacher_epochs=60,
    student={"kind": "timm", "name": "claims_resnet18"},
    images=None,
    epochs=60,
    batch=512,
    lr=0.2,
    with_teacher=LARGE_TEACHERS,
)


def gaps(device: str) -> dict[str, Gap]:
    """What must hold: fixed before anything was measured."""
    small = device == "cpu"

    def gap(name: str, other: str, **expected: float | None) -> Gap:
        return Gap((name, "mean", "overall"), (other, "mean", "overall"), **expected)

    return {
        "NKD - CE": gap("NKD", "CE", at_least=1.0 if small else 0.8, each_above=0.0, published=2.06),
        "NKD - KD": gap("NKD", "KD", at_least=0.0 if small else -0.2, published=0.93),
        "USKD - CE": gap("USKD", "CE", at_least=-1.0 if small else 0.2, published=0.89),
        "KD - CE": gap("KD", "CE", published=1.13),
        "DKD - CE": gap("DKD", "CE", published=1.80),
        "label smoothing - CE": gap("label smoothing", "CE", published=1.39),
        "Tf-KD - CE": gap("Tf-KD", "CE", published=1.49),
    }


class ThreeConvolutions(nn.Module):
    """Logits (B, C) of images (B, 3, H, W): 8 channels, then 16 and 32 at half and a quarter of the side."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = ((3, 8, 1), (8, 16, 2), (16, 32, 2))
        self.stages = nn.Sequential(*(_stage(*width) for width in widths))
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C)."""
        logits: Tensor = self.head(self.stages(x).mean((2, 3)))
        return logits


class _Rectified(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, _Rectified(outputs))


@register_model
def claims_three_convolutions(pretrained: bool = False, *, num_classes: int, **_: Any) -> nn.Module:
    """The student of a CPU's size."""
    return ThreeConvolutions(num_classes)


@register_model
def claims_resnet18(pretrained: bool = False, *, num_classes: int, **_: Any) -> nn.Module:
    """timm's ResNet-18 with the stem for small images."""
    return _small_stem("resnet18", num_classes)


@register_model
def claims_resnet34(pretrained: bool = False, *, num_classes: int, **_: Any) -> nn.Module:
    """timm's ResNet-34 with the stem for small images."""
    return _small_stem("resnet34", num_classes)


def _small_stem(name: str, classes: int) -> nn.Module:
    model: nn.Module = timm.create_model(name, num_classes=classes)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


def configurations(size: Size, *, for_teacher: Pictures, pictures: Pictures) -> dict[str, Configuration]:
    """The teacher and its students, then those that have none."""
    plain = {"kind": "cross_entropy"}
    teacher = recipe(size, size.teacher, plain, epochs=size.teacher_epochs)
    taught = {
        name: Configuration(recipe(size, size.student, objective, epochs=size.epochs), pictures, "teacher")
        for name, objective in size.with_teacher.items()
    }
    alone = {
        name: Configuration(recipe(size, size.student, objective, epochs=size.epochs), pictures)
        for name, objective in WITHOUT_TEACHER.items()
    }
    return {"teacher": Configuration(teacher, for_teacher), **taught, **alone}


def recipe(size: Size, model: dict[str, Any], objective: dict[str, Any], *, epochs: int) -> Train:
    """SGD with momentum and half a cosine, on shifted and mirrored images."""
    return Train.model_validate(
        {
            "model": model,
            "objective": objective,
            "epochs": epochs,
            "micro_batches": 1,
            "micro_batch_size": size.batch,
            "preprocessing": {"size": size.side, **STATISTICS},
            "augment": {"crop": {"kind": "pad", "padding": size.side // 8}},
            "optimizer": {"name": "sgd", "lr": size.lr, "weight_decay": 5e-4, "decay_1d": True},
            "schedule": {"kind": "cosine", "min_lr": 0.0},
        }
    )


def measure(size: Size, *, data: Path, results: Path, seeds: list[int], device: str) -> dict[str, Any]:
    """The summary over all pairs."""
    archive = Archive(data)
    for_teacher, pictures = (
        archive.train(side=size.side, n_max=images) for images in (size.teacher_images, size.images)
    )
    rows = configurations(size, for_teacher=for_teacher, pictures=pictures)
    trials = Trials(rows, archive.test(side=size.side), results=results, device=device)
    trials.run(seeds)
    return trials.summary(gaps(device), seeds)


def main() -> None:
    """Measure, print tables, print the figures as JSON."""
    given = arguments(__doc__)
    size = CPU if given.device == "cpu" else CUDA
    finish(measure(size, data=given.data, results=given.results, seeds=given.seeds, device=given.device))


if __name__ == "__main__":
    main()
