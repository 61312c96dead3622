"""One tiny model of each family, with all that is random in it on."""

import torch

from vitops.compression.pruning.dense import as_pruned_vit
from vitops.config.models import CifarResNet, TimmModel
from vitops.models import build

CLASSES = 4
NOISE = {"drop_rate": 0.1, "drop_path_rate": 0.3}
VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
SWIN = {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}


def vit(classes=CLASSES, **args):
    return build(TimmModel(name="deit_tiny_patch16_224", args={**VIT, **NOISE, **args}), classes=classes)


def deit(classes=CLASSES, **args):
    return build(TimmModel(name="deit_tiny_distilled_patch16_224", args={**VIT, **NOISE, **args}), classes=classes)


def swin(classes=CLASSES):
    """Two stages of one block: the configuration's ``args`` hold no lists, so it is built from timm directly."""
    import timm  # after vitops, which mends torchvision

    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=classes, **SWIN, **NOISE)


def cnn(classes=CLASSES):
    return build(TimmModel(name="test_resnet", args=NOISE), classes=classes)


def cifar_resnet(classes=CLASSES, head="linear"):
    return build(CifarResNet(depth=8, head=head), classes=classes)


def pruned():
    return as_pruned_vit(deit(drop_rate=0.0, drop_path_rate=0.0))


FAMILIES = {"vit": vit, "swin": swin, "cnn": cnn, "deit": deit}
"""The students that every objective must train."""


def made(family, *, seed=1):
    """A model with weights that depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return family()
