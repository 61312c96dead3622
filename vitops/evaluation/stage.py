"""The ``evaluate`` stage: every model of a pipeline on the test set. No other stage reads the test set."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitops.config.pipelines import Evaluate
from vitops.config.training import Preprocessing
from vitops.data.loader import SplitReader, open_split
from vitops.errors import VitopsError
from vitops.evaluation.analysis import expert_diversity, subset_analysis
from vitops.evaluation.answers import agreement, confusion
from vitops.evaluation.calibration import calibration
from vitops.evaluation.predictors import (
    Predictions,
    Predictor,
    onnx_predictor,
    subset_predictions,
    torch_predictor,
    torch_threads,
)
from vitops.models import ModelSpec, load
from vitops.models.counting import macs, parameters
from vitops.store.canonical import write_json
from vitops.store.job import Job, Outcome
from vitops.training.environment import facts

JSON = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """One model to evaluate. ``size`` is what its network has, whatever file it is stored in."""

    name: str
    role: str
    file: Path
    predictor: Predictor
    preprocessing: Preprocessing
    size: dict[str, int]
    network: nn.Module | None
    """What can be looked into; an ONNX file cannot."""


def evaluate(job: Job) -> Outcome:
    """Write metrics.json: of each model the numbers per head, its parameters, MACs, file bytes, and a look inside.

    A head has the task kind's scores, ``ece`` and ``calibration``, ``confusion``, and ``agreement`` with the teacher.
    The inside of a torch model is its ``analysis``, with the diversity of its experts in each epoch of its training.
    Raises VitopsError when a model was trained for other classes than the split has.
    """
    thresholds = dict(Evaluate.model_validate(job.parameters["config"]))
    reader = open_split(job.inputs["split"])
    models: dict[str, Any] = {}
    teacher: Tensor | None = None
    with torch_threads(int(job.resources.get("threads", 1))):
        for candidate in _candidates(job, reader):
            job.report(model=candidate.name)
            found = subset_predictions(
                candidate.predictor, reader, subset="test", preprocessing=candidate.preprocessing
            )
            heads = _heads(found, reader, teacher=teacher, **thresholds)
            models[candidate.name] = _described(candidate, reader, digest=job.digests[candidate.role], heads=heads)
            if candidate.role == "teacher":
                teacher = _answers(found.logits["mean"])
        environment = facts("cpu")
    identity = json.loads((job.inputs["split"] / "split.json").read_bytes())
    write_json(
        job.out / "metrics.json",
        {
            "dataset": identity["dataset"],
            "split": identity["split"],
            "classes": reader.classes,
            "train_counts": reader.train_counts,
            "test_samples": reader.size("test"),
            "groups": reader.kind.groups(reader.train_counts, **thresholds),
            "models": models,
        },
    )
    overall = {name: entry["heads"]["mean"]["overall"] for name, entry in models.items()}
    return Outcome(facts={"overall": overall, "environment": environment})


def _candidates(job: Job, reader: SplitReader) -> Iterator[Candidate]:
    """Models one at a time, so that the others need no memory; the teacher first, with whom the others may agree.

    A pipeline may have no teacher, and may end with the student. The ONNX files are forms of the pruned model.
    """
    if "teacher" in job.inputs:
        yield _torch_candidate(job, reader, name="teacher", role="teacher")
    yield _torch_candidate(job, reader, name="student", role="student")
    if "prune" not in job.inputs:
        return
    pruned = _torch_candidate(job, reader, name="pruned", role="prune")
    yield pruned
    for name, role, file in (("onnx", "export", "model.onnx"), ("int8", "quantize", "model.int8.onnx")):
        path = job.inputs[role] / file
        yield replace(pruned, name=name, role=role, file=path, predictor=onnx_predictor(path), network=None)


def _torch_candidate(job: Job, reader: SplitReader, *, name: str, role: str) -> Candidate:
    folder = job.inputs[role]
    module, spec = load(folder)
    _check_classes(spec, reader, name=name, folder=folder)
    preprocessing = Preprocessing.model_validate(spec.preprocessing)
    return Candidate(
        name=name,
        role=role,
        file=folder / "weights.safetensors",
        predictor=torch_predictor(module),
        preprocessing=preprocessing,
        size={"parameters": parameters(module), "macs": macs(module, preprocessing.size)},
        network=module,
    )


def _check_classes(spec: ModelSpec, reader: SplitReader, *, name: str, folder: Path) -> None:
    if list(spec.classes) != list(reader.classes):
        raise VitopsError(
            f"the {name} in {folder} knows {len(spec.classes)} classes {spec.classes[:5]}..., the split has "
            f"{len(reader.classes)} {reader.classes[:5]}...: evaluate it on a split of the dataset it was trained on"
        )


def _heads(found: Predictions, reader: SplitReader, *, teacher: Tensor | None, **thresholds: Any) -> JSON:
    """The numbers of each head, which rest on its logits alone (and on the answers of the teacher)."""
    classes, targets = len(reader.classes), found.targets
    heads: JSON = {}
    for head, logits in found.logits.items():
        answers = _answers(logits)
        heads[head] = {
            **reader.kind.score(logits, targets, train_counts=reader.train_counts, **thresholds),
            **calibration(logits, targets),
            "confusion": confusion(answers, targets, classes=classes),
        }
        if teacher is not None:
            heads[head]["agreement"] = agreement(answers, teacher, targets, classes=classes)
    return heads


def _answers(logits: Tensor) -> Tensor:
    return logits.argmax(dim=1)


def _described(candidate: Candidate, reader: SplitReader, *, digest: str, heads: JSON) -> JSON:
    entry = {"artifact": digest, "heads": heads, **candidate.size, "bytes": candidate.file.stat().st_size}
    if candidate.network is None:
        return entry
    inside = subset_analysis(candidate.network, reader, subset="test", preprocessing=candidate.preprocessing)
    return entry | {"analysis": inside | _diversity_in_training(candidate.file.parent)}


def _diversity_in_training(folder: Path) -> JSON:
    """Expert diversity in each epoch, on training images, where the model's objective noted the cosine."""
    rows: list[JSON] = json.loads((folder / "history.json").read_bytes())
    noted = [expert_diversity(row["cosine"]) for row in rows if "cosine" in row]
    return {"expert_diversity_by_epoch": noted} if noted else {}
