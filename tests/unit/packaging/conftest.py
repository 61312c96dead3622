import hashlib
import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from vitops.packaging.package import package
from vitops.store.job import Job

CLASSES = ["zero", "o|ne", "t\x1b[31mwo", "three", "four", "five", "six"]
TRAIN_COUNTS = [150, 80, 40, 22, 19, 8, 3]
SIZE = 8
PREPROCESSING = {
    "size": SIZE,
    "resize": None,
    "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


def linear_onnx(path, *, seed=0, batch="batch", classes=7, output="logits"):
    """A real ONNX classifier: flatten and one Gemm."""
    rng = np.random.default_rng(seed)
    weight = numpy_helper.from_array(rng.normal(size=(3 * SIZE * SIZE, classes)).astype(np.float32) / 10, "w")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, classes])
    nodes = [helper.make_node("Flatten", ["image"], ["x"]), helper.make_node("MatMul", ["x", "w"], [output])]
    graph = helper.make_graph(nodes, "g", [image], [logits], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return onnx.load(path)


def entry(artifact, *, shift=0.0, heads=("mean",)):
    per_class = [99.0, 97.5, 95.0, None, 90.0, 60.0, 40.0]
    score = {
        "overall": 91.25 - shift,
        "top5": 99.5,
        "many": 97.0,
        "medium": 92.0,
        "few": None,
        "per_class": per_class,
    }
    return {
        "artifact": artifact,
        "heads": dict.fromkeys(heads, score),
        "parameters": 1234,
        "macs": 50_000 if shift else 100_000,
        "bytes": 4321,
    }


def digest_of(name):
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture
def inputs(tmp_path):
    """Artifact folders of every role that the package stage reads, with real ONNX files."""
    folders = {role: tmp_path / "in" / role for role in ("split", "prune", "export", "quantize", "evaluate")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    linear_onnx(folders["export"] / "model.onnx", seed=1)
    linear_onnx(folders["quantize"] / "model.int8.onnx", seed=2)
    save_file({"w": np.zeros(2, np.float32)}, folders["prune"] / "weights.safetensors")
    spec = {
        "builder": {},
        "preprocessing": PREPROCESSING,
        "classes": CLASSES,
        "train_counts": TRAIN_COUNTS,
        "dims": None,
    }
    (folders["prune"] / "model.json").write_text(json.dumps(spec))
    outputs = {"logits": {"absolute": 1e-6, "relative": 1.25e-6}}
    parity = {"images": 64, "tolerance": 1e-4, "opset": 20, "outputs": outputs}
    (folders["export"] / "parity.json").write_text(json.dumps(parity))
    quantization = {
        "products": {"weights": 26, "attention": 12, "integer": 26, "float": 12},
        "accuracy": {"images": 50, "fp32": 92.0, "int8": 91.5, "drop": 0.5, "max_drop": 1.0},
    }
    (folders["quantize"] / "quantization.json").write_text(json.dumps(quantization))
    metrics = {
        "dataset": "digits",
        "split": "lt5",
        "classes": CLASSES,
        "train_counts": TRAIN_COUNTS,
        "test_samples": 350,
        "groups": {"many": [0], "medium": [1, 2, 3], "few": [4, 5, 6]},
        "models": {
            "teacher": entry(digest_of("teacher")),
            "student": entry(digest_of("student"), heads=("cls", "dist", "mean")),
            "pruned": entry(digest_of("prune"), shift=1.0, heads=("cls", "dist", "mean")),
            "onnx": entry(digest_of("export"), shift=1.0, heads=("cls", "dist", "mean")),
            "int8": entry(digest_of("quantize"), shift=2.0, heads=("cls", "dist", "mean")),
        },
    }
    (folders["evaluate"] / "metrics.json").write_text(json.dumps(metrics))
    return folders


@pytest.fixture
def make_package(inputs, tmp_path):
    """Run the real package stage into a fresh folder."""

    def make(name="package", **parameters):
        out = tmp_path / name
        out.mkdir()
        job = Job(
            stage="package",
            key="ab" * 32,
            parameters={"config": {}, "seed": 0, **parameters},
            inputs=inputs,
            digests={role: digest_of(role) for role in inputs},
            out=out,
            checkpoints=tmp_path,
        )
        return SimpleNamespace(path=out, job=job, outcome=package(job))

    return make


@pytest.fixture
def linear():
    """Write a small real ONNX classifier."""
    return linear_onnx
