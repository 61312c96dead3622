"""A frozen network that labels what the student sees.

Laws: it stays in evaluation mode, carries no gradient, and its buffers never change. It sees the student's own
augmented images, out of its distribution on purpose; by default they are not even re-normalised for it.
Source: DeiT-LT (CVPR 2024, arXiv 2404.02900), distillation from out-of-distribution images.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitops.errors import UsageError

_MEMORY = "vitops_memory"


class Memory(Protocol):
    """What a teacher said before; attached to its module with ``remember``."""

    def logits(self, images: Tensor, position: Tensor, *, view: dict[str, Any], ask: Callable[[], Tensor]) -> Tensor:
        """The module's answer to ``images``, remembered or by ``ask``; the same bits either way."""
        ...


def remember(module: nn.Module, memory: Memory) -> None:
    """Let every ``Teacher`` of ``module`` look up in ``memory`` what samples with a position were answered before."""
    setattr(module, _MEMORY, memory)


def frozen(teachers: Mapping[str, nn.Module], role: str, *, objective: str) -> nn.Module:
    """The module of ``role`` in evaluation mode without gradients. Raises UsageError when there is none."""
    if role not in teachers:
        raise UsageError(f"objective {objective} needs a model in the role {role!r}, found {sorted(teachers)}")
    return teachers[role].eval().requires_grad_(False)


def resize(images: Tensor, size: int | None, *, antialias: bool) -> Tensor:
    """Images (B, 3, H, W) at ``size`` pixels a side, bicubic; unchanged where that is their size or None."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", align_corners=False, antialias=antialias)


class Teacher:
    """What a frozen network says of a student's images: logits, or hard labels."""

    def __init__(
        self,
        module: nn.Module,
        *,
        student: nn.Module,
        classes: int,
        size: int | None = None,
        antialias: bool = False,
        renormalize: bool = False,
    ) -> None:
        """``classes`` of the data; ``size``, ``antialias``: see resize; ``renormalize`` to the teacher's mean and std.

        Class names, mean and std come from the modules' ``vitops_spec``. A teacher whose class order differs is mapped
        by name. Raises UsageError when its classes are not the data's, or a mean and std to renormalize are unknown.
        """
        self.module = module
        self.size = size
        self.antialias = antialias
        self._classes = classes
        self._affine = _renormalisation(student, module) if renormalize else None
        self._class_map = _class_map(module, student=student)
        known = _class_number(module)
        if known is not None:
            self._check(known)

    def view(self, images: Tensor) -> Tensor:
        """What the teacher sees of the student's ``images`` (B, 3, H, W)."""
        if self._affine is not None:
            scale, shift = (values.to(images).view(1, -1, 1, 1) for values in self._affine)
            images = images * scale + shift
        return resize(images, self.size, antialias=self.antialias)

    @torch.no_grad()
    def logits(self, images: Tensor, position: Tensor | None = None) -> Tensor:
        """Logits (B, C) in the data's label order. ``position``: where in the stream the images stand, if known."""
        logits = self._answer(images, position)
        self._check(logits.shape[1])
        return logits if self._class_map is None else logits[:, self._class_map.argsort().to(logits.device)]

    @torch.no_grad()
    def predict(self, images: Tensor, position: Tensor | None = None) -> Tensor:
        """Predicted classes (B,), int64, in the data's label order; ``position`` as for ``logits``."""
        logits = self._answer(images, position)
        self._check(logits.shape[1])
        return hard_labels(logits, class_map=self._class_map)

    def _answer(self, images: Tensor, position: Tensor | None) -> Tensor:
        def ask() -> Tensor:
            logits: Tensor = self.module(self.view(images))
            return logits

        memory: Memory | None = getattr(self.module, _MEMORY, None)
        if memory is None or position is None:
            return ask()
        affine = None if self._affine is None else [values.tolist() for values in self._affine]
        view = {"size": self.size, "antialias": self.antialias, "affine": affine}
        return memory.logits(images, position, view=view, ask=ask)

    def _check(self, found: int) -> None:
        if found != self._classes:
            raise UsageError(
                f"the teacher knows {found} classes but the data has {self._classes}: train the teacher on this split"
            )


def hard_labels(logits: Tensor, *, class_map: Tensor | None = None) -> Tensor:
    """Most likely class (B,) of ``logits`` (B, C), relabelled through ``class_map`` (C,) from teacher to student."""
    labels = logits.argmax(dim=1)
    return labels if class_map is None else class_map.to(labels.device)[labels]


def _class_number(module: nn.Module) -> int | None:
    found = getattr(module, "num_classes", None)
    return found if isinstance(found, int) else None


def _class_map(teacher: nn.Module, *, student: nn.Module) -> Tensor | None:
    ours, theirs = (getattr(_spec(module), "classes", None) for module in (student, teacher))
    if ours is None or theirs is None or ours == theirs:
        return None
    if sorted(ours) != sorted(theirs):
        odd = sorted(set(ours) ^ set(theirs))[:5]
        raise UsageError(f"teacher and student do not share their classes: only one of them knows {odd}")
    return torch.tensor([ours.index(name) for name in theirs])


def _renormalisation(student: nn.Module, teacher: nn.Module) -> tuple[Tensor, Tensor]:
    (mean_s, std_s), (mean_t, std_t) = _statistics(student, who="student"), _statistics(teacher, who="teacher")
    return std_s / std_t, (mean_s - mean_t) / std_t


def _statistics(module: nn.Module, *, who: str) -> tuple[Tensor, Tensor]:
    spec = _spec(module)
    if spec is None:
        raise UsageError(f"objective.teacher_renormalize: mean and std of the {who} are unknown (it carries no spec)")
    mean, std = spec.preprocessing["mean"], spec.preprocessing["std"]
    return torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)


def _spec(module: nn.Module) -> Any:
    return getattr(module, "vitops_spec", None)
