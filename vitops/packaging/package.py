"""The ``package`` stage: one folder with everything that is needed to use, check and explain the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime as ort

from vitops.errors import VitopsError
from vitops.evaluation.onnx_session import session
from vitops.packaging.card import CardFacts, card
from vitops.packaging.folder import FILES, RECEIPT
from vitops.packaging.preprocess import Preprocess
from vitops.store.canonical import sha256_file, write_json
from vitops.store.job import Job, Outcome

_COPIES = {
    "model.safetensors": ("prune", "weights.safetensors"),
    "model.json": ("prune", "model.json"),
    "model.onnx": ("export", "model.onnx"),
    "model.int8.onnx": ("quantize", "model.int8.onnx"),
}
"""File of the package -> (input role, file of that artifact)."""
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"


def package(job: Job) -> Outcome:
    """Fill the package folder from the prune, export, quantize and evaluate artifacts.

    Raises VitopsError when the ONNX files do not have the promised interface.
    """
    for name, (role, source) in _COPIES.items():
        shutil.copyfile(job.inputs[role] / source, job.out / name)
    spec = _json(job.out / "model.json")
    interfaces = {
        name: _interface(job.out / name, classes=len(spec["classes"])) for name in ("model.onnx", "model.int8.onnx")
    }
    preprocess = _preprocess(spec["preprocessing"])
    write_json(job.out / "preprocessing.json", preprocess.to_json())
    facts = CardFacts(
        metrics=_json(job.inputs["evaluate"] / "metrics.json"),
        parity=_json(job.inputs["export"] / "parity.json"),
        quantization=_json(job.inputs["quantize"] / "quantization.json"),
        preprocess=preprocess,
        input_name=interfaces["model.int8.onnx"],
        digests=job.digests,
        pipeline=job.parameters.get("pipeline"),
    )
    (job.out / "card.md").write_text(card(facts), encoding="utf-8")
    write_json(job.out / RECEIPT, _statement(job))
    return Outcome(facts={"bytes": sum(file.stat().st_size for file in job.out.iterdir())})


def _interface(path: Path, *, classes: int) -> str:
    """Name of the single image input. Raises VitopsError unless the batch is dynamic and output 0 is the logits."""
    run: ort.InferenceSession = session(path)
    inputs, logits = run.get_inputs(), run.get_outputs()[0]
    if len(inputs) != 1 or isinstance(inputs[0].shape[0], int):
        raise VitopsError(
            f"{path.name} must have one image input with a dynamic batch, got {[i.shape for i in inputs]}"
        )
    if logits.name != "logits" or logits.shape[1] != classes:
        raise VitopsError(f"{path.name} must give `logits` (batch, {classes}) first, got {logits.name} {logits.shape}")
    return str(inputs[0].name)


def _preprocess(section: dict[str, Any]) -> Preprocess:
    return Preprocess(
        size=section["size"],
        mean=tuple(section["mean"]),
        std=tuple(section["std"]),
        interpolation=section["interpolation"],
        resize=section.get("resize"),
    )


def _statement(job: Job) -> dict[str, Any]:
    """An in-toto statement about the package's other files, without clock, host or user: these bytes are exact."""
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha256_file(job.out / name)}} for name in sorted(FILES)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:vitops:stage:package",
                "externalParameters": job.parameters,
                "internalParameters": {"stage": job.stage, "key": job.key},
                "resolvedDependencies": [
                    {"name": role, "digest": {"sha256": digest}} for role, digest in sorted(job.digests.items())
                ],
            },
            "runDetails": {"builder": {"id": "urn:vitops"}},
        },
    }


def _json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document
