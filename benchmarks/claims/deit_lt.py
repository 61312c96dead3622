"""DeiT-LT against a ViT and a DeiT of the same size on long-tailed CIFAR-10: do two experts form, and does it pay?

ViT (no teacher, CLS alone), DeiT (hard distillation, never re-weighted), DeiT-LT, and DeiT-LT whose teacher was trained
without SAM. The teacher is a small ResNet with a cosine head, trained with LDAM and deferred re-weighting. In all four
students mixup and cutmix end at the DRW epoch, so that they differ in nothing but what their name says.

Without an accelerator: pictures averaged to 16 x 16 pixels, imbalance factor 50 from 1000 images down (2795 in all),
at most 10 minutes for each configuration and seed on one core. With one: 32 x 32, imbalance factor 100 from 5000 down.
Accuracy is that of the last epoch on the whole balanced test set; head, mid and tail are classes 0-2, 3-6 and 7-9.

    python benchmarks/claims/deit_lt.py --data cifar10.tar --results deit_lt.jsonl [--seeds 0 1 2] [--device cuda]

The last line is one JSON object; exit code 1 when a bound does not hold. Published figures are those of DeiT-B at 224
pixels; differences were read off the paper's first figure.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trials import Archive, Configuration, Gap, Pictures, Trials, arguments, finish

from vitops.config.training import Train

STATISTICS = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.201]}
"""The teacher's input; its students' images keep ImageNet's, and are not re-normalised for it, as in the paper."""


@dataclass(frozen=True)
class Size:
    """A protocol's budget."""

    side: int
    n_max: int | None
    imbalance_factor: float
    teacher_depth: int
    teacher_epochs: int
    teacher_batch: int
    rho: float
    width: int
    depth: int
    heads: int
    epochs: int
    warmup: int
    batch: int


CPU = Size(
    side=16,
    n_max=1000,
    imbalance_factor=50,
    teacher_depth=8,
    teacher_epochs=30,
    teacher_batch=64,
    rho=0.05,
    width=64,
    depth=3,
    heads=2,
    epochs=60,
    warmup=3,
    batch=64,
)
CUDA = Size(
    side=32,
    n_max=None,
    imbalance_factor=100,
    teacher_depth=32,
    teacher_epochs=100,
    teacher_batch=128,
    rho=0.8,
    width=192,
    depth=12,
    heads=3,
    epochs=300,
    warmup=5,
    batch=1024,
)
WITHOUT_SAM = "DeiT-LT without SAM"


def gaps(device: str) -> dict[str, Gap]:
    """What must hold: fixed before anything was measured."""
    small = device == "cpu"
    cls, dist, mean = (("DeiT-LT", head) for head in ("cls", "dist", "mean"))
    vit, plain = ("ViT", "cls"), ("DeiT", "dist")
    return {
        "DIST - CLS, tail": Gap((*dist, "tail"), (*cls, "tail"), at_least=15 if small else 10),
        "CLS - DIST, head": Gap((*cls, "head"), (*dist, "head"), at_least=10 if small else 0),
        "DeiT-LT - ViT, overall": Gap((*mean, "overall"), (*vit, "overall"), at_least=4 if small else 8),
        "DeiT-LT - ViT, tail": Gap((*mean, "tail"), (*vit, "tail"), at_least=5 if small else 15, published=34.0),
        "DRW, DIST's tail": Gap((*dist, "tail"), (*plain, "tail"), at_least=10),
        "SAM's teacher, overall": Gap(
            (*mean, "overall"), (WITHOUT_SAM, "mean", "overall"), at_least=None if small else 0
        ),
    }


def configurations(size: Size, pictures: Pictures) -> dict[str, Configuration]:
    """Both teachers and the four students."""
    switch = {"epoch": round(0.9 * size.epochs)}
    unweighted = {"kind": "deit_lt", "drw": {**switch, "beta": 0.0}}
    weighted = {"kind": "deit_lt", "drw": switch}
    students = {
        "ViT": ({**unweighted, "alpha": 0.0}, None),
        "DeiT": (unweighted, "teacher"),
        "DeiT-LT": (weighted, "teacher"),
        WITHOUT_SAM: (weighted, "teacher without SAM"),
    }
    return {
        "teacher": Configuration(teacher(size, sam={"rho": size.rho}), pictures),
        "teacher without SAM": Configuration(teacher(size, sam=None), pictures),
        **{name: Configuration(student(size, objective), pictures, by) for name, (objective, by) in students.items()},
    }


def teacher(size: Size, *, sam: dict[str, Any] | None) -> Train:
    """LDAM-DRW in the shape of the papers' schedule of 200 epochs: switch and first decay at 160, second at 180."""
    epochs = size.teacher_epochs
    return Train.model_validate(
        {
            "model": {"kind": "cifar_resnet", "depth": size.teacher_depth, "head": "cosine"},
            "objective": {"kind": "ldam", "drw": {"epoch": 4 * epochs // 5}},
            "epochs": epochs,
            "micro_batches": 1,
            "micro_batch_size": size.teacher_batch,
            "preprocessing": {"size": size.side, **STATISTICS},
            "augment": {"crop": {"kind": "pad", "padding": size.side // 8}},
            "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 2e-4, "decay_1d": True},
            "schedule": {
                "kind": "multistep",
                "warmup_epochs": epochs / 40,
                "milestones": [4 * epochs // 5, 9 * epochs // 10],
            },
            "sam": sam,
        }
    )


def student(size: Size, objective: dict[str, Any]) -> Train:
    """A distilled ViT on mixed images."""
    shape = {"img_size": size.side, "patch_size": 4}
    shape |= {"embed_dim": size.width, "depth": size.depth, "num_heads": size.heads}
    return Train.model_validate(
        {
            "model": {"kind": "timm", "name": "deit_tiny_distilled_patch16_224", "args": shape},
            "objective": objective,
            "epochs": size.epochs,
            "micro_batches": 1,
            "micro_batch_size": size.batch,
            "preprocessing": {"size": size.side},
            "augment": {"crop": {"kind": "pad", "padding": size.side // 8}},
            "mixup": {},
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
            "schedule": {"kind": "cosine", "warmup_epochs": size.warmup},
        }
    )


def measure(size: Size, *, data: Path, results: Path, seeds: list[int], device: str) -> dict[str, Any]:
    """The summary over all pairs."""
    archive = Archive(data)
    pictures = archive.train(side=size.side, n_max=size.n_max, imbalance_factor=size.imbalance_factor)
    test = archive.test(side=size.side)
    trials = Trials(configurations(size, pictures), test, results=results, device=device)
    trials.run(seeds)
    published = {"DeiT-LT": {"mean": {"overall": 89.8, "head": 94.9, "mid": 87.0, "tail": 88.6}}}
    return {"published": published, **trials.summary(gaps(device), seeds)}


def main() -> None:
    """Measure, print tables, print the figures as JSON."""
    given = arguments(__doc__)
    size = CPU if given.device == "cpu" else CUDA
    finish(measure(size, data=given.data, results=given.results, seeds=given.seeds, device=given.device))


if __name__ == "__main__":
    main()
