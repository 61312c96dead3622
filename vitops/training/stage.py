"""The training stage: split (and teacher) in, model out."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitops.config.pipelines import Resources
from vitops.config.training import Preprocessing, Train
from vitops.data.keyed import seeded
from vitops.data.loader import SplitReader, TrainStream, eval_batches, open_split
from vitops.data.order import position_to_sample
from vitops.errors import VitopsError
from vitops.losses.registry import build as build_objective
from vitops.losses.teacher import remember
from vitops.models.artifact import ModelSpec, attach, load, save
from vitops.models.heads import predict
from vitops.models.registry import build as build_model
from vitops.store.canonical import write_json
from vitops.store.job import Job, Outcome
from vitops.training.comm import Comm
from vitops.training.environment import arithmetic, facts
from vitops.training.launch import run
from vitops.training.loop import FitResult, fit
from vitops.training.teacher_cache import Positioned, TeacherCache, stream_of

GATE_IMAGES = 2000


def train(job: Job) -> Outcome:
    """Train the configured model on ``job.inputs["split"]``, distilling from ``job.inputs["teacher"]`` if given.

    Writes ``weights.safetensors``, ``model.json``, ``history.json`` and, with ``ema``, the averaged weights as
    ``ema.safetensors`` (the model's own weights are the raw ones).
    """
    return run(train_rank, job)


def train_rank(job: Job, comm: Comm) -> Outcome:
    """One worker's part of ``train``; rank 0 writes the files."""
    config, seed = Train.model_validate(job.parameters["config"]), int(job.parameters["seed"])
    resources = Resources.model_validate(job.resources)
    reader = open_split(job.inputs["split"])
    with arithmetic(threads=resources.threads, exact=resources.mode == "exact"):
        teachers = _teachers(job, config.objective.roles(), reader, seed=seed, device=resources.device)
        caches = _remembering(job, config, teachers, world=comm.world)
        model = _model(config, reader, seed=seed)
        stream = TrainStream(reader, config, seed)
        with seeded(seed, "train", "objective"):
            objective = build_objective(config.objective, model=model, teachers=teachers, counts=reader.train_counts)
        result = fit(
            model,
            objective,
            Positioned(stream) if caches else stream,
            config,
            seed=seed,
            comm=comm,
            checkpoints=job.checkpoints,
            shared_checkpoints=job.shared_checkpoints,
            resources=resources,
            report=partial(_report, job, caches),
            stopping=job.stopping,
            key=job.key,
            allow_environment_change=job.allow_environment_change,
        )
        if comm.rank == 0:
            _write(job, model, result)
        found = arithmetic_facts(resources, result) | _told(caches)
    return Outcome(resumed_from=result.resumed_from, work_lost=result.work_lost, facts=found)


def arithmetic_facts(resources: Resources, *trained: FitResult) -> dict[str, Any]:
    """What a receipt says about the arithmetic: ``mode``, ``environment``, and ``environment_changed`` if it did."""
    changes = [change for result in trained for change in result.environment_changes]
    told = {"mode": resources.mode, "environment": facts(resources.device)}
    return told | ({"environment_changed": changes} if changes else {})


def check_teacher(teacher: nn.Module, spec: ModelSpec, *, reader: SplitReader, seed: int) -> float:
    """Class-balanced accuracy of a teacher on at most 2,000 clean training images, in 0..1.

    Raises VitopsError below min(2 / C, (1 + 1/C) / 2): such a teacher was trained on other labels (deit_lt.md, pitfall
    5). Plain accuracy would let a teacher pass that always names the largest class.
    """
    count, classes = reader.size("train"), len(reader.classes)
    chosen = position_to_sample(seed, 0, count, np.arange(min(count, GATE_IMAGES)))
    device = next(teacher.parameters()).device
    by_name = torch.tensor([reader.classes.index(name) for name in spec.classes])
    preprocessing = Preprocessing.model_validate(spec.preprocessing)
    hits, seen = np.zeros(classes), np.zeros(classes)
    for sample in eval_batches(reader, "train", preprocessing, indices=chosen):
        with torch.no_grad():
            answers = by_name[predict(teacher, sample["input"].to(device)).argmax(1).cpu()]
        np.add.at(seen, sample["target"].numpy(), 1)
        np.add.at(hits, sample["target"].numpy(), (answers == sample["target"]).numpy())
    accuracy = float((hits[seen > 0] / seen[seen > 0]).mean())
    needed = min(2 / classes, (1 + 1 / classes) / 2)
    if accuracy < needed:
        raise VitopsError(
            f"the teacher names the right class for {100 * accuracy:.1f} % of clean training images (class-balanced, "
            f"{int(seen.sum())} images); at least {100 * needed:.1f} % are needed. It was probably trained on other "
            "labels or another preprocessing, or it has not learned: look at its history.json."
        )
    return accuracy


def _teachers(job: Job, roles: Iterable[str], reader: SplitReader, *, seed: int, device: str) -> dict[str, nn.Module]:
    """The frozen teachers that the objective reads among the job's inputs, each checked on clean images."""
    teachers = {}
    for role in roles:
        if role in job.inputs:
            teacher, spec = load(job.inputs[role])
            if sorted(spec.classes) != sorted(reader.classes):
                raise VitopsError(
                    f"the {role} in {job.inputs[role]} knows the classes {_short(spec.classes)}, the split has "
                    f"{_short(reader.classes)}. Take a teacher trained on this dataset."
                )
            teachers[role] = teacher.eval().requires_grad_(False).to(device)
            check_teacher(teachers[role], spec, reader=reader, seed=seed)
    return teachers


def _remembering(job: Job, config: Train, teachers: dict[str, nn.Module], *, world: int) -> dict[str, TeacherCache]:
    """A cache for each teacher, if the resources give room for one; it is attached to the teacher."""
    resources = Resources.model_validate(job.resources)
    limit, seed = int(resources.teacher_cache_gib * 2**30), int(job.parameters["seed"])
    if not limit or job.caches is None:
        return {}
    caches = {}
    for role, teacher in teachers.items():
        stream = stream_of(config, digests=job.digests, role=role, seed=seed, resources=resources)
        caches[role] = TeacherCache(job.caches / "teachers", stream, limit=limit, world=world)
        remember(teacher, caches[role])
    return caches


def _report(job: Job, caches: Mapping[str, TeacherCache], **values: Any) -> None:
    job.report(**values, **_told(caches))


def _told(caches: Mapping[str, TeacherCache]) -> dict[str, Any]:
    """What this worker's caches answered, by role; nothing where there are none."""
    return {"teacher_cache": {role: cache.told() for role, cache in caches.items()}} if caches else {}


def _model(config: Train, reader: SplitReader, *, seed: int) -> nn.Module:
    """The configured model with its initial weights and its description attached."""
    with seeded(seed, "train", "initial weights"):
        model = build_model(config.model, classes=len(reader.classes))
    spec = ModelSpec(
        builder=config.model.parameters(),
        preprocessing=config.preprocessing.parameters(),
        classes=reader.classes,
        train_counts=reader.train_counts,
    )
    return attach(model, spec)


def _write(job: Job, model: nn.Module, result: FitResult) -> None:
    spec: Any = model.vitops_spec
    save(job.out, model, spec)
    write_json(job.out / "history.json", result.history)
    if result.ema_state is not None:
        save_file(_portable(result.ema_state), job.out / "ema.safetensors")


def _portable(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def _short(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
