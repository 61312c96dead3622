"""The running state of a training, one call per step: every hook of the objective in its place."""

import math
from typing import Any, Protocol

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from vitops.config.pipelines import Resources
from vitops.config.training import Recipe
from vitops.errors import VitopsError
from vitops.losses.objective import Contributions, Objective
from vitops.training import optimizer as optimizers
from vitops.training import schedules
from vitops.training.comm import Comm
from vitops.training.gradients import Key, SampleOf, StepGradient
from vitops.training.sam import perturbed


class Stream(Protocol):
    """Where micro-batches come from: a pure function of the position (``vitops.data.loader.TrainStream``)."""

    steps_per_epoch: int

    def micro_batch(self, epoch: int, step: int, m: int, *, mix: bool) -> dict[str, Tensor]:
        """Micro-batch ``m`` of a step."""
        ...


class Training:
    """The running state: model, optimizer, averages and history; one call per step."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        stream: Stream,
        recipe: Recipe,
        *,
        seed: int,
        comm: Comm,
        resources: Resources,
    ) -> None:
        self.device = torch.device(resources.device)
        self.model = model.to(self.device).train()
        self.objective, self.stream, self.recipe = objective, stream, recipe
        self.seed, self.comm, self.steps = seed, comm, stream.steps_per_epoch
        auxiliary = objective.auxiliary.to(self.device).train()
        self.optimizer = optimizers.build(recipe.optimizer, model, auxiliary)
        self._schedule = schedules.build(
            recipe.schedule, self.optimizer, steps_per_epoch=self.steps, epochs=recipe.epochs
        )
        self.average = ModelEmaV3(model, decay=recipe.ema) if recipe.ema else None
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []
        trained = nn.ModuleDict({"model": model, "auxiliary": auxiliary})
        self._gradient = StepGradient(
            trained, objective, comm=comm, micro_batches=recipe.micro_batches, exact=resources.mode == "exact"
        )
        named = (*model.named_parameters(), *auxiliary.named_parameters("auxiliary"))
        self._parameters = {name: value for name, value in named if value.requires_grad}

    def rate(self, epoch: int, step: int) -> float:
        """Set the optimizer's learning rate to that of a step, and return it."""
        self._schedule.step_update(epoch * self.steps + step)
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def step(self, epoch: int, step: int) -> None:
        """One optimizer step, every hook of the objective in its place."""
        self.rate(epoch, step)
        loss, contributions = self._backward(epoch, step)
        if not math.isfinite(loss):
            raise VitopsError(
                f"the loss became {loss} in epoch {epoch}, step {step} ({_parts(contributions)}). "
                "Lower optimizer.lr, add warm-up or clip_grad."
            )
        self.objective.merge(contributions)
        self.objective.after_backward({name: value.grad for name, value in self._parameters.items()})  # type: ignore[misc]
        if self.recipe.clip_grad is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.recipe.clip_grad)
        self.optimizer.step()
        self.objective.after_step(self.optimizer)
        if self.average is not None:
            self.average.update(self.model)
        self.losses.append(loss)

    def close_epoch(self, epoch: int) -> None:
        """Write the epoch's line of the history."""
        rate = self.rate(epoch, max(0, len(self.losses) - 1))
        mean = math.fsum(self.losses) / max(1, len(self.losses))
        self.history.append({"epoch": epoch, "loss": mean, "lr": rate, **self.objective.summary()})
        self.losses = []

    def _backward(self, epoch: int, step: int) -> tuple[float, list[Contributions]]:
        """Gradients of the step in ``.grad``; with SAM those at the perturbed weights, but the first pass's numbers.

        Both of SAM's passes run in training mode and update running statistics, as in the official code.
        """
        key: Key = (self.seed, "step", epoch, step)
        sam = self.recipe.sam
        rho = sam.at(epoch) if sam else 0.0
        if sam is None or rho == 0:
            return self._gradient.run(self._samples(epoch, step), key)
        samples = _kept(self._samples(epoch, step))
        first = self._gradient.run(samples, key)
        with perturbed(list(self._parameters.values()), rho=rho, adaptive=sam.adaptive):
            self._gradient.run(samples, key)
        return first

    def _samples(self, epoch: int, step: int) -> SampleOf:
        mix = self.recipe.mixup is not None and self.objective.mixes(epoch)

        def sample(m: int) -> dict[str, Tensor]:
            found = self.stream.micro_batch(epoch, step, m, mix=mix)
            return {name: value.to(self.device) for name, value in found.items()}

        return sample


def _parts(contributions: list[Contributions]) -> str:
    """The step's numbers per sample, as far as they are scalars."""
    samples = sum(int(entry["samples"]) for entry in contributions if "samples" in entry)
    names = [name for name, value in contributions[0].items() if value.is_floating_point() and value.ndim == 0]
    sums = {name: math.fsum(float(entry[name]) for entry in contributions) for name in names}
    return ", ".join(f"{name} {value / max(1, samples):g}" for name, value in sums.items())


def _kept(samples: SampleOf) -> SampleOf:
    """The same samples, made once and kept for a second pass over the step."""
    kept: dict[int, dict[str, Tensor]] = {}

    def sample(m: int) -> dict[str, Tensor]:
        if m not in kept:
            kept[m] = samples(m)
        return dict(kept[m])

    return sample
