"""Static post-training quantization: an fp32 ONNX model becomes an int8 QDQ model that ONNX Runtime runs on integers.

Weights of every MatMul, Gemm and Conv are int8 per output channel, activations uint8 per tensor with ranges observed on
validation images; the products between computed values (attention) stay float, where that is faster and closer.

Laws: the bytes depend on the float model, the calibration images and the library versions alone (ONNX Runtime has one
thread, torch the declared number); a file leaves this stage only if every weight product runs on an integer kernel and
the accuracy on the validation set holds.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer
from torch import Tensor

from vitops.compression.export import MODEL, stripped, validation_images, write
from vitops.compression.quantization.kernels import (
    PRODUCTS,
    Kernels,
    attention_products,
    check,
    count,
    weight_products,
)
from vitops.config.compression import Quantize
from vitops.config.training import Preprocessing
from vitops.data.loader import SplitReader, eval_batches, open_split
from vitops.errors import VitopsError
from vitops.evaluation.onnx_session import session
from vitops.evaluation.predictors import torch_threads
from vitops.models import ModelSpec
from vitops.store.canonical import write_json
from vitops.store.job import Job, Outcome
from vitops.training.environment import facts

INT8_MODEL = "model.int8.onnx"
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_CALIBRATION_BATCH = 32
_CLOSEST_COSINE = 0.99
"""Mean cosine below which the two optimisation levels of ONNX Runtime count as different models."""


class _Images(CalibrationDataReader):
    def __init__(self, images: Tensor, *, name: str) -> None:
        self._name = name
        # batches of one size: the histograms of the other calibrations refuse a shorter last one
        size = next(size for size in range(_CALIBRATION_BATCH, 0, -1) if len(images) % size == 0)
        self._batches: Iterator[Tensor] = iter(images.split(size))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch.contiguous().numpy()}


def quantized(
    model: onnx.ModelProto, images: Tensor, *, calibration: str = "minmax", attention_float: bool = True
) -> onnx.ModelProto:
    """``model`` with quantize/dequantize pairs around its products; ``images`` (n, 3, S, S) give activation ranges."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, MODEL), Path(folder, INT8_MODEL)
        onnx.save(model, source)
        quantizer = QDQQuantizer(
            save_and_reload_model_with_shape_infer(model),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=_ranges(source, _Images(images, name=model.graph.input[0].name), calibration=calibration),
            nodes_to_quantize=[],
            nodes_to_exclude=[node.name for node in attention_products(model.graph)] if attention_float else [],
            op_types_to_quantize=list(PRODUCTS),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(target)
        return stripped(onnx.load(target))


def _ranges(source: Path, images: _Images, *, calibration: str) -> TensorsData:
    """Observed range of every activation. The calibrator's own session would take all cores; ours has one thread."""
    augmented = source.with_name("augmented.onnx")
    calibrator = create_calibrator(
        source, list(PRODUCTS), augmented_model_path=str(augmented), calibrate_method=_METHODS[calibration]
    )
    calibrator.infer_session = session(augmented, level="none")
    calibrator.collect_data(images)
    return calibrator.compute_data()


def quantize(job: Job) -> Outcome:
    """Stage: write model.int8.onnx, the model's model.json beside it, and quantization.json.

    Raises VitopsError when a weight product stays float, when ONNX Runtime's optimisation levels disagree, or when
    validation accuracy drops by more than ``max_drop`` points.
    """
    config = Quantize.model_validate(job.parameters["config"])
    source, target = job.inputs["export"], job.out / INT8_MODEL
    spec = ModelSpec.model_validate_json((source / "model.json").read_bytes())
    preprocessing = Preprocessing.model_validate(spec.preprocessing)
    reader = open_split(job.inputs["split"])
    floating = onnx.load(source / MODEL)
    with torch_threads(int(job.resources.get("threads", 1))):
        images = validation_images(reader, preprocessing, count=config.images)
        model = quantized(floating, images, calibration=config.calibration, attention_float=config.attention_float)
        write(model, target)
        accuracy = _accuracy(source / MODEL, target, reader=reader, preprocessing=preprocessing)
        environment = facts("cpu")
    shutil.copyfile(source / "model.json", job.out / "model.json")
    kernels = count(target)
    weights = len(weight_products(floating.graph))
    products = {
        "weights": weights,
        "attention": len(attention_products(floating.graph)),
        "integer": sum(kernels.integer.values()),
        "float": sum(kernels.floating.values()),
        "kernels": kernels.integer | kernels.floating,
    }
    record = {
        "calibration": {"images": len(images), "method": config.calibration},
        "products": products,
        "bytes": sizes(source / MODEL, target),
        "accuracy": accuracy | {"max_drop": config.max_drop},
    }
    write_json(job.out / "quantization.json", record)
    gate(kernels, accuracy, weights=weights, max_drop=config.max_drop)
    return Outcome(facts={"drop": accuracy["drop"], "bytes": record["bytes"], "environment": environment})


def sizes(floating: Path, integer: Path) -> dict[str, float]:
    """Bytes of both files and their ratio."""
    before, after = floating.stat().st_size, integer.stat().st_size
    return {"fp32": before, "int8": after, "ratio": after / before}


def gate(kernels: Kernels, accuracy: dict[str, Any], *, weights: int, max_drop: float) -> None:
    """Raise VitopsError when the quantized model is not what the configuration promises."""
    check(kernels, weights=weights)
    if accuracy["levels_cosine"] < _CLOSEST_COSINE:
        raise VitopsError(
            f"ONNX Runtime's default optimisation changes the quantized model: mean cosine of its logits to those of "
            f"the basic optimisation is {accuracy['levels_cosine']:.4f} (at least {_CLOSEST_COSINE} is expected). "
            "Set quantize.attention_float: true"
        )
    if accuracy["drop"] > max_drop:
        raise VitopsError(
            f"int8 loses {accuracy['drop']:.2f} points of validation accuracy ({accuracy['fp32']:.2f} to "
            f"{accuracy['int8']:.2f}), more than quantize.max_drop ({max_drop:g}): try another quantize.calibration "
            "(entropy, percentile), more quantize.images, or allow a larger drop"
        )


def _accuracy(floating: Path, integer: Path, *, reader: SplitReader, preprocessing: Preprocessing) -> dict[str, Any]:
    sessions = {"fp32": session(floating), "int8": session(integer), "basic": session(integer, level="basic")}
    (field,) = (node.name for node in sessions["fp32"].get_inputs())
    logits: dict[str, list[Tensor]] = {name: [] for name in sessions}
    targets: list[Tensor] = []
    for batch in eval_batches(reader, "val", preprocessing):
        targets.append(batch["target"])
        for name, run in sessions.items():
            logits[name].append(torch.from_numpy(run.run(["logits"], {field: batch["input"].contiguous().numpy()})[0]))
    joined = {name: torch.cat(parts) for name, parts in logits.items()}
    truth = torch.cat(targets)
    score, counts = reader.kind.score, reader.train_counts
    found = {name: score(values, truth, train_counts=counts)["overall"] for name, values in joined.items()}
    return {
        "images": len(truth),
        "fp32": found["fp32"],
        "int8": found["int8"],
        "drop": round(found["fp32"] - found["int8"], 4),
        "int8_cosine": _cosine(joined["int8"], joined["fp32"]),
        "levels_cosine": _cosine(joined["int8"], joined["basic"]),
    }


def _cosine(found: Tensor, expected: Tensor) -> float:
    return round(float(torch.nn.functional.cosine_similarity(found, expected).mean()), 6)
