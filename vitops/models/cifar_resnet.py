"""The small ResNet for 32 px images, with option-A shortcuts: no parameters, just subsampling and zero channels.

Depth 6n + 2: three stages of n basic blocks with 16, 32 and 64 channels. In timm's registry: ``cifar_resnet32`` etc.
Source: He et al. (2016), "Deep Residual Learning for Image Recognition", section 4.2.
"""

from typing import Any, Literal

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from vitops.config.models import CifarResNet as Section
from vitops.errors import UsageError
from vitops.models.heads import CosineHead

__all__ = ["CifarResNet", "build"]

Head = Literal["linear", "cosine"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut that keeps every second pixel and pads channels with zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.padding = (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


class CifarResNet(nn.Module):
    """Logits (B, C), or cosines in [-1, 1] with the cosine head, of images (B, 3, H, W)."""

    def __init__(self, depth: int, *, num_classes: int = 10, head: Head = "linear") -> None:
        """Raises UsageError for a depth that is not 6n + 2."""
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            below = max(8, depth - (depth - 2) % 6)
            raise UsageError(f"model.depth must be 6n + 2 (8, 14, 20, 32, ...), got {depth}; {below} is the next below")
        blocks = (depth - 2) // 6
        self.depth = depth
        self.num_classes = num_classes
        self.num_features = 64
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.stages = nn.Sequential(*(_stage(*widths, blocks=blocks) for widths in ((16, 16), (16, 32), (32, 64))))
        self.head: nn.Linear = CosineHead(64, num_classes) if head == "cosine" else nn.Linear(64, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d) or (isinstance(module, nn.Linear) and module is not self.head):
                nn.init.kaiming_normal_(module.weight)
        if not isinstance(self.head, CosineHead):
            nn.init.kaiming_normal_(self.head.weight)

    def forward_features(self, x: Tensor) -> Tensor:
        """Pooled features (B, 64)."""
        x = self.stages(F.relu(self.bn1(self.conv1(x))))
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C)."""
        logits: Tensor = self.head(self.forward_features(x))
        return logits


def _stage(inputs: int, outputs: int, *, blocks: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs), *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


def build(section: Section, *, classes: int) -> nn.Module:
    """The network of ``section``, freshly initialised. Raises UsageError for a depth that is not 6n + 2."""
    return CifarResNet(section.depth, num_classes=classes, head=section.head)


def _create(depth: int, pretrained: bool, *, num_classes: int = 10, head: Head = "linear", **ignored: Any) -> nn.Module:
    unknown = sorted(ignored.keys() - {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"})
    if unknown:
        raise TypeError(f"cifar_resnet{depth} takes num_classes and head, not {', '.join(unknown)}")
    if pretrained:
        raise UsageError(f"cifar_resnet{depth} has no published weights: train it")
    return CifarResNet(depth, num_classes=num_classes, head=head)


@register_model
def cifar_resnet8(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-8 for 32 px images."""
    return _create(8, pretrained, **kwargs)


@register_model
def cifar_resnet14(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-14 for 32 px images."""
    return _create(14, pretrained, **kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-20 for 32 px images."""
    return _create(20, pretrained, **kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-32 for 32 px images: the teacher of DeiT-LT."""
    return _create(32, pretrained, **kwargs)


@register_model
def cifar_resnet44(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-44 for 32 px images."""
    return _create(44, pretrained, **kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-56 for 32 px images."""
    return _create(56, pretrained, **kwargs)
