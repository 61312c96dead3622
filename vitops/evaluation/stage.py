"""The ``evaluate`` stage: every model of a pipeline on the test set. No other stage reads the test set."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitops.config.pipelines import Evaluate
from vitops.config.training import Preprocessing
from vitops.data.loader import SplitReader, open_split
from vitops.errors import VitopsError
from vitops.evaluation.predictors import Predictor, onnx_predictor, subset_predictions, torch_predictor, torch_threads
from vitops.models import ModelSpec, load
from vitops.models.counting import macs, parameters
from vitops.store.canonical import write_json
from vitops.store.job import Job, Outcome
from vitops.training.environment import facts


@dataclass(frozen=True)
class Candidate:
    """One model to evaluate. ``size`` is what its network has, whatever file it is stored in."""

    name: str
    role: str
    file: Path
    predictor: Predictor
    preprocessing: Preprocessing
    size: dict[str, int]


def evaluate(job: Job) -> Outcome:
    """Write metrics.json: the task kind's scores per head, parameters, MACs and file bytes of each model.

    Raises VitopsError when a model was trained for other classes than the split has.
    """
    thresholds = dict(Evaluate.model_validate(job.parameters["config"]))
    reader = open_split(job.inputs["split"])
    models: dict[str, Any] = {}
    with torch_threads(int(job.resources.get("threads", 1))):
        for candidate in _candidates(job, reader):
            job.report(model=candidate.name)
            models[candidate.name] = _measure(candidate, reader, digest=job.digests[candidate.role], **thresholds)
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
    """Models one at a time, so that the others need no memory. The ONNX files are forms of the pruned model."""
    yield _torch_candidate(job, reader, name="teacher", role="teacher")
    yield _torch_candidate(job, reader, name="student", role="student")
    pruned = _torch_candidate(job, reader, name="pruned", role="prune")
    yield pruned
    for name, role, file in (("onnx", "export", "model.onnx"), ("int8", "quantize", "model.int8.onnx")):
        path = job.inputs[role] / file
        yield replace(pruned, name=name, role=role, file=path, predictor=onnx_predictor(path))


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
    )


def _check_classes(spec: ModelSpec, reader: SplitReader, *, name: str, folder: Path) -> None:
    if list(spec.classes) != list(reader.classes):
        raise VitopsError(
            f"the {name} in {folder} knows {len(spec.classes)} classes {spec.classes[:5]}..., the split has "
            f"{len(reader.classes)} {reader.classes[:5]}...: evaluate it on a split of the dataset it was trained on"
        )


def _measure(candidate: Candidate, reader: SplitReader, *, digest: str, **thresholds: Any) -> dict[str, Any]:
    found = subset_predictions(candidate.predictor, reader, subset="test", preprocessing=candidate.preprocessing)
    heads = {
        head: reader.kind.score(logits, found.targets, train_counts=reader.train_counts, **thresholds)
        for head, logits in found.logits.items()
    }
    return {"artifact": digest, "heads": heads, **candidate.size, "bytes": candidate.file.stat().st_size}
