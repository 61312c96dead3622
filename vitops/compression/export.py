"""fp32 ONNX of a model, kept only if ONNX Runtime gives the same logits as torch.

Laws: the bytes depend on the weights, the architecture and the library versions alone (no stack trace, path, clock);
one input, named by the task kind, of normalised values with any batch size; output 0 is ``logits`` (batch, C) of the
mean head, followed by ``cls`` and ``dist`` when the model is distilled; weights lie inside the file.
"""

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from vitops.compression.fused_attention import fused
from vitops.config.compression import Export
from vitops.config.training import Preprocessing
from vitops.data.loader import SplitReader, eval_batches, open_split
from vitops.errors import UsageError, VitopsError
from vitops.evaluation.onnx_session import session
from vitops.evaluation.predictors import torch_threads
from vitops.models import load
from vitops.models.heads import heads, is_distilled
from vitops.store.canonical import write_json
from vitops.store.job import Job, Outcome
from vitops.training.environment import facts

MODEL = "model.onnx"
_HEADS = {"logits": "mean", "cls": "cls", "dist": "dist"}
_LARGEST_BATCH = 1024


class HeadsModule(nn.Module):
    """A model whose forward gives the exported outputs in their order."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.outputs = tuple(_HEADS) if is_distilled(model) else ("logits",)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``x`` (B, ...) -> logits (B, C) of each output."""
        logits = heads(self.model, x)
        return tuple(logits[_HEADS[name]] for name in self.outputs)


def to_onnx(model: nn.Module, *, inputs: Mapping[str, tuple[int, ...]], opset: int) -> onnx.ModelProto:
    """The model as an ONNX graph without anything that varies between two exports.

    ``inputs``: name and shape (without the batch) of its one input, as a task kind gives them.
    """
    module = HeadsModule(fused(model)).eval()
    ((name, shape),) = inputs.items()
    example = torch.zeros(2, *shape)
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's exporter warns about its own internals
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[name],
            output_names=list(module.outputs),
            dynamic_shapes=({0: batch},),
        )
    if program is None:
        raise VitopsError("torch.onnx.export returned no program")
    return stripped(program.model_proto)


def stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without documentation and metadata, which hold stack traces and module paths; edited in place."""
    graph = model.graph
    holders = (graph.node, graph.value_info, graph.input, graph.output, graph.initializer)
    for item in (model, graph, *(entry for holder in holders for entry in holder)):
        item.doc_string = ""
        del item.metadata_props[:]
    return model


def write(model: onnx.ModelProto, path: Path) -> None:
    """Deterministic bytes of the model."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def export(job: Job) -> Outcome:
    """Stage: write model.onnx, the model's own model.json beside it, and parity.json.

    Raises VitopsError when an output differs from torch's by more than ``tolerance``.
    """
    config = Export.model_validate(job.parameters["config"])
    model, spec = load(job.inputs["model"])
    preprocessing = Preprocessing.model_validate(spec.preprocessing)
    path = job.out / MODEL
    with torch_threads(int(job.resources.get("threads", 1))):
        reader = open_split(job.inputs["split"])
        write(to_onnx(model, inputs=reader.kind.export_inputs(preprocessing), opset=config.opset), path)
        images = validation_images(reader, preprocessing, count=config.images)
        outputs = parity(model, path, images=images)
        environment = facts("cpu")
    shutil.copyfile(job.inputs["model"] / "model.json", job.out / "model.json")
    record = {"images": len(images), "tolerance": config.tolerance, "opset": config.opset, "outputs": outputs}
    write_json(job.out / "parity.json", record | {"bytes": path.stat().st_size})
    gate(outputs, tolerance=config.tolerance)
    return Outcome(facts={"relative": outputs["logits"]["relative"], "environment": environment})


def validation_images(reader: SplitReader, preprocessing: Preprocessing, *, count: int) -> Tensor:
    """``count`` validation images (or all) spread evenly over the set, as the model sees them: (n, 3, S, S).

    Spread, because the index may be ordered by class. Raises UsageError when the split has no validation images.
    """
    total = reader.size("val")
    if total == 0:
        raise UsageError("the split has no validation images, which export and quantize need: raise val_per_class")
    chosen = np.arange(min(count, total), dtype=np.int64) * total // min(count, total)
    return torch.cat([batch["input"] for batch in eval_batches(reader, "val", preprocessing, indices=chosen)])


def parity(model: nn.Module, path: Path, *, images: Tensor) -> dict[str, dict[str, float]]:
    """Largest difference to torch of each output over ``images``: absolute, and relative to the largest logit.

    The images run as one batch and the first one alone, so that a wrong batch dimension cannot hide.
    """
    module = HeadsModule(model).eval()
    run = session(path)
    (field,) = (node.name for node in run.get_inputs())
    with torch.inference_mode():
        expected = [output.numpy() for output in module(images)]
    batch = run.run(list(module.outputs), {field: images.numpy()})
    single = run.run(list(module.outputs), {field: images[:1].numpy()})
    return {name: _difference(expected[i], batch[i], single[i], name=name) for i, name in enumerate(module.outputs)}


def _difference(expected: Any, batch: Any, single: Any, *, name: str) -> dict[str, float]:
    if not all(np.isfinite(values).all() for values in (expected, batch, single)):
        raise VitopsError(
            f"output `{name}` holds NaN or infinity: the model cannot be exported; "
            "train it again with a lower optimizer.lr"
        )
    largest = max(float(np.abs(batch - expected).max()), float(np.abs(single - expected[:1]).max()))
    return {"absolute": largest, "relative": largest / max(float(np.abs(expected).max()), 1e-12)}


def gate(outputs: dict[str, dict[str, float]], *, tolerance: float) -> None:
    """Raise VitopsError when an output is farther from torch than ``tolerance``, relative to the largest logit."""
    for name, difference in outputs.items():
        if difference["relative"] > tolerance:
            raise VitopsError(
                f"the ONNX output `{name}` differs from torch by {difference['relative']:.2e} of the largest logit, "
                f"more than export.tolerance ({tolerance:.1e}): the export is not the model. Report the model, or "
                "raise the tolerance if the difference is explained"
            )
