"""The ``prune`` stage: prune under masks, shrink to dense weights, fine-tune.

Both trainings run through the one loop with their own checkpoints (``pruning/``, ``finetune/``); what lies between
them is a pure function of the first one's end, so a run killed anywhere continues to the same bytes.
From the start of pruning on the model drops what ``prune.dropout`` says (by default nothing), in both trainings.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from vitops.compression.export import validation_images
from vitops.compression.pruning.cost import macs
from vitops.compression.pruning.dense import as_pruned_vit
from vitops.compression.pruning.groups import EMB
from vitops.compression.pruning.pruner import Pruner
from vitops.compression.pruning.shrink import shrink
from vitops.config.compression import Prune
from vitops.config.pipelines import Resources
from vitops.config.training import MultiStep, Preprocessing, Recipe
from vitops.data.keyed import derive, seeded
from vitops.data.loader import TrainStream, open_split
from vitops.errors import UsageError, VitopsError
from vitops.evaluation.predictors import subset_predictions, torch_predictor
from vitops.losses.registry import build as build_objective
from vitops.models import ModelSpec, attach, heads, load, save
from vitops.models.counting import parameters
from vitops.models.pruned_vit import PrunedViT
from vitops.store.canonical import write_json
from vitops.store.job import Job, Outcome
from vitops.training.comm import Comm
from vitops.training.environment import arithmetic
from vitops.training.launch import run
from vitops.training.loop import FitResult, fit
from vitops.training.stage import arithmetic_facts, check_teacher

_EQUIVALENCE = 1e-4
_IMAGES = 64


def prune(job: Job) -> Outcome:
    """Stage: write the pruned, fine-tuned model, dims.json, masks.safetensors, prune_log.json and history.json.

    With ``ema`` in the fine-tuning, also the averaged weights as ema.safetensors (the model's own are the raw ones).

    Raises UsageError for a model or a target that pruning cannot serve, VitopsError when the shrunk model does not
    compute what the masked one does.
    """
    return run(prune_rank, job)


def prune_rank(job: Job, comm: Comm) -> Outcome:
    """One worker's part of ``prune``; rank 0 writes the files."""
    resources = Resources.model_validate(job.resources)
    with arithmetic(threads=resources.threads, exact=resources.mode == "exact"):
        return _Pruning(job, comm).run()


@dataclass(frozen=True)
class Shrunk:
    """The end of the pruning phase."""

    masked: PrunedViT
    small: PrunedViT
    pruner: Pruner
    fitted: FitResult


class _Pruning:
    """What both phases share."""

    def __init__(self, job: Job, comm: Comm) -> None:
        self.job, self.comm = job, comm
        self.config = Prune.model_validate(job.parameters["config"])
        self.seed = int(job.parameters["seed"])
        self.resources = Resources.model_validate(job.resources)
        self.reader = open_split(job.inputs["split"])
        student, self.spec = load(job.inputs["model"])
        self.dense = _with_spec(as_pruned_vit(student, self.config.dropout), self.spec)
        self._check_size()
        teacher, taught = load(job.inputs["teacher"])
        self.teachers = {"teacher": teacher, "dense": copy.deepcopy(self.dense)}
        for module in self.teachers.values():
            module.eval().requires_grad_(False).to(self.resources.device)
        check_teacher(teacher, taught, reader=self.reader, seed=self.seed)

    def run(self) -> Outcome:
        """Both phases; files are written by rank 0."""
        shrunk = self.remove()
        found = equivalence(shrunk, images=validation_images(self.reader, self.preprocessing, count=_IMAGES))
        tuned = copy.deepcopy(shrunk.small)
        fitted = self.finetune(tuned)
        if self.comm.rank == 0:
            self.write(shrunk, tuned, fitted=fitted, equivalence=found)
        told = arithmetic_facts(self.resources, shrunk.fitted, fitted)
        told |= {"cost": _share(self.dense, tuned), "equivalence": found}
        resumed = fitted.resumed_from or shrunk.fitted.resumed_from
        return Outcome(resumed_from=resumed, work_lost=fitted.work_lost or shrunk.fitted.work_lost, facts=told)

    @property
    def preprocessing(self) -> Preprocessing:
        """That of the recipe: what the model is fed from here on."""
        return self.config.finetune.preprocessing

    def _check_size(self) -> None:
        built, fed = self.dense.dims.img_size, self.preprocessing.size
        if built != fed:
            raise UsageError(
                f"prune.finetune.preprocessing.size is {fed}, but the student was built for {built} pixels"
            )

    def remove(self) -> Shrunk:
        """Phase 1: prune under masks until the target, then shrink."""
        model = copy.deepcopy(self.dense)
        inner = self._objective(model)
        pruner = Pruner(self.config, inner, model=model)
        stream = self._stream(self.config.finetune, "pruning")
        steps = pruner.rounds_at_most() * self.config.interval
        recipe = pruning_recipe(self.config, epochs=-(-steps // stream.steps_per_epoch))
        fitted = self._fit(model, pruner, stream=stream, recipe=recipe, phase="pruning")
        if not pruner.done:
            raise VitopsError(
                f"pruning ended after {steps} steps without reaching prune.target {self.config.target}: "
                "raise prune.target or prune.groups_per_round"
            )
        model.cpu().eval()
        small = _with_spec(shrink(model, pruner.keep, ln=self.config.ln_conversion), self.spec)
        return Shrunk(masked=model, small=small, pruner=pruner, fitted=fitted)

    def finetune(self, model: PrunedViT) -> FitResult:
        """Phase 3: train the dense, smaller model in place with the same teachers."""
        recipe = self.config.finetune
        stream = self._stream(recipe, "finetune")
        fitted = self._fit(model, self._objective(model), stream=stream, recipe=recipe, phase="finetune")
        model.cpu().eval()
        return fitted

    def _objective(self, model: PrunedViT) -> Any:
        section, counts = self.config.finetune.objective, self.reader.train_counts
        with seeded(self.seed, "prune", "objective"):
            return build_objective(section, model=model, teachers=self.teachers, counts=counts)

    def _stream(self, recipe: Recipe, phase: str) -> TrainStream:
        return TrainStream(self.reader, recipe, derive(self.seed, phase))

    def _fit(self, model: PrunedViT, objective: Any, *, stream: TrainStream, recipe: Recipe, phase: str) -> FitResult:
        return fit(
            model,
            objective,
            stream,
            recipe,
            seed=derive(self.seed, phase),
            comm=self.comm,
            checkpoints=self.job.checkpoints / phase,
            shared_checkpoints=self.job.shared_checkpoints and f"{self.job.shared_checkpoints}/{phase}",
            resources=self.resources,
            report=lambda **values: self.job.report(phase=phase, **values),
            stopping=self.job.stopping,
            key=self.job.key,
            allow_environment_change=self.job.allow_environment_change,
        )

    def write(self, shrunk: Shrunk, tuned: PrunedViT, *, fitted: FitResult, equivalence: dict[str, Any]) -> None:
        """The artifact's files."""
        out, dims = self.job.out, tuned.dims.model_dump(mode="json")
        spec = self.spec.model_copy(
            update={"dims": dims, "preprocessing": self.preprocessing.parameters(), "classes": self.reader.classes}
        )
        save(out, tuned, spec)
        save_file({name: mask.clone() for name, mask in shrunk.pruner.keep.items()}, out / "masks.safetensors")
        if fitted.ema_state is not None:
            average = {name: value.detach().cpu().clone() for name, value in fitted.ema_state.items()}
            save_file(average, out / "ema.safetensors")
        write_json(out / "dims.json", summary(self.dense, tuned))
        models = {"dense": self.dense, "masked": shrunk.masked, "shrunk": shrunk.small, "finetuned": tuned}
        accuracy = {name: self._accuracy(model) for name, model in models.items()}
        log = {"rounds": shrunk.pruner.log, "equivalence": equivalence, "validation_accuracy": accuracy}
        write_json(out / "prune_log.json", log)
        write_json(out / "history.json", history(shrunk.fitted, fitted, share=_share(self.dense, tuned)))

    def _accuracy(self, model: nn.Module) -> float | None:
        found = subset_predictions(
            torch_predictor(model.cpu()), self.reader, subset="val", preprocessing=self.preprocessing
        )
        scores = self.reader.kind.score(found.logits["mean"], found.targets, train_counts=self.reader.train_counts)
        overall: float | None = scores["overall"]
        return overall


def pruning_recipe(config: Prune, *, epochs: int) -> Recipe:
    """The recipe of phase 1: the fine-tuning's, at the constant rate ``prune.lr``, without averages and SAM."""
    base = config.finetune
    return base.model_copy(
        update={
            "epochs": epochs,
            "optimizer": base.optimizer.model_copy(update={"lr": config.lr}),
            "schedule": MultiStep(milestones=()),
            "ema": None,
            "sam": None,
        }
    )


def equivalence(shrunk: Shrunk, *, images: torch.Tensor) -> dict[str, Any]:
    """Largest difference of the logits of the masked and the shrunk model, relative to the largest logit.

    Raises VitopsError when it exceeds 1e-4 although both compute the same function (residual width untouched, or the
    exact norm); otherwise it is the jump of the norm's conversion, and only reported.
    """
    with torch.inference_mode():
        masked, small = heads(shrunk.masked, images), heads(shrunk.small, images)
    largest = max(1e-12, *(float(values.abs().max()) for values in masked.values()))
    difference = max(float((masked[name] - small[name]).abs().max()) for name in masked) / largest
    expected = bool(shrunk.pruner.keep[EMB].all()) or shrunk.small.dims.ln.mode == "exact"
    if expected and not difference <= _EQUIVALENCE:
        raise VitopsError(
            f"the shrunk model differs from the masked one by {difference:.2e} of the largest logit (at most "
            f"{_EQUIVALENCE:g} is expected): shrinking this architecture is wrong; report the model"
        )
    return {"images": len(images), "relative": difference, "expected": expected}


def summary(dense: PrunedViT, pruned: PrunedViT) -> dict[str, Any]:
    """Widths, multiply-accumulates and parameters before and after."""
    models = {"before": dense, "after": pruned}
    dims = {name: model.dims.model_dump(mode="json") for name, model in models.items()}
    cost = {name: macs(value) for name, value in dims.items()}
    size = {name: parameters(model) for name, model in models.items()}
    return {**dims, "macs": cost, "parameters": size, "macs_share": cost["after"] / cost["before"]}


def history(pruning: FitResult, finetune: FitResult, *, share: float) -> list[dict[str, Any]]:
    """Rows of both phases in one list: ``phase``, ``epoch`` counted through, ``cost`` as share of the dense model's."""
    rows = [row | {"phase": "pruning"} for row in pruning.history]
    rows += [row | {"phase": "finetune", "cost": share} for row in finetune.history]
    return [row | {"epoch": epoch} for epoch, row in enumerate(rows)]


def _share(dense: PrunedViT, pruned: PrunedViT) -> float:
    return macs(pruned.dims.model_dump(mode="json")) / macs(dense.dims.model_dump(mode="json"))


def _with_spec(model: PrunedViT, spec: ModelSpec) -> PrunedViT:
    """Objectives look for class names, mean and std on the module."""
    attach(model, spec)
    return model
