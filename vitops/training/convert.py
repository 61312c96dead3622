"""The ``convert`` stage: weights from elsewhere in, a model artifact out, for all that reads one."""

from pathlib import Path
from typing import Any

from vitops.config.pretrained import Pretrained
from vitops.data.loader import open_split
from vitops.models.artifact import ModelSpec, save
from vitops.models.pretrained import pretrained
from vitops.plan.weights import brought
from vitops.store import canonical
from vitops.store.job import Job, Outcome


def convert(job: Job) -> Outcome:
    """Write ``weights.safetensors``, ``model.json`` and an empty ``history.json`` (nothing was trained here).

    The outputs are put into the order of the classes of ``job.inputs["split"]``. Whether the model can teach is judged
    where it teaches. Raises UsageError where the weights are missing, are others, or do not fit the model.
    """
    config = job.parameters["config"]
    file = brought(config["weights"], job.file)
    model = section(config, file)
    classes = open_split(job.inputs["split"]).classes
    spec = ModelSpec(
        builder=model.model.parameters(),
        preprocessing=model.preprocessing.parameters(),
        classes=classes,
        train_counts=[],
    )
    save(job.out, pretrained(model, file, classes=classes), spec)
    canonical.write_json(job.out / "history.json", [])
    return Outcome(facts={"weights": {"file": file.name, "sha256": canonical.sha256_file(file)}})


def section(config: dict[str, Any], file: Path) -> Pretrained:
    """The configuration of a ``convert`` stage, whose parameters leave out the place of its file."""
    weights = config["weights"]
    return Pretrained.model_validate(
        {**config, "weights": weights if "timm" in weights else weights | {"file": str(file)}}
    )
