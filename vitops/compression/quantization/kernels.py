"""Which kernels ONNX Runtime really runs for the products of a model, read from the graph it optimised.

A QDQ file only asks for integers; whether a node runs on them is decided by ONNX Runtime's fusions. Counting operator
types in the optimised graph is the proof.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

from vitops.errors import VitopsError
from vitops.evaluation.onnx_session import session

PRODUCTS = ("MatMul", "Gemm", "Conv")
_INTEGER = ("QLinearMatMul", "QGemm", "QLinearConv", "MatMulInteger", "MatMulIntegerToFloat", "ConvInteger")
_FLOAT = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Conv", "FusedConv")


@dataclass(frozen=True)
class Kernels:
    """Operator type -> count; ``float_weights`` names the float products that have a constant operand."""

    integer: dict[str, int]
    floating: dict[str, int]
    float_weights: tuple[str, ...]


def constants(graph: onnx.GraphProto) -> set[str]:
    """Names of values that no input of the graph reaches: initializers and what is computed from them alone."""
    known = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if all(name in known for name in node.input):
            known.update(node.output)
    return known


def weight_products(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """MatMul, Gemm and Conv nodes of a float model with a constant operand."""
    fixed = constants(graph)
    return [node for node in graph.node if node.op_type in PRODUCTS and set(node.input[:2]) & fixed]


def attention_products(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """MatMul nodes of a float model between two computed values: q@k and attention@v."""
    fixed = constants(graph)
    return [node for node in graph.node if node.op_type == "MatMul" and not set(node.input) & fixed]


def count(path: Path) -> Kernels:
    """Products in the graph that ONNX Runtime optimises ``path`` into on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder, "optimized.onnx")
        session(path, optimized=optimized)
        graph = onnx.load(optimized).graph
    fixed = constants(graph)
    floats = [node for node in graph.node if node.op_type in _FLOAT]
    return Kernels(
        integer=dict(Counter(node.op_type for node in graph.node if node.op_type in _INTEGER)),
        floating=dict(Counter(node.op_type for node in floats)),
        float_weights=tuple(node.name or node.output[0] for node in floats if set(node.input[:2]) & fixed),
    )


def check(kernels: Kernels, *, weights: int) -> None:
    """Raise VitopsError when one of the ``weights`` products of the float model does not run on integers."""
    if kernels.float_weights:
        raise VitopsError(
            f"ONNX Runtime runs {len(kernels.float_weights)} weight products of the quantized model in float: "
            f"{', '.join(kernels.float_weights[:10])}. This version fuses the graph differently; use the pinned one"
        )
    found = sum(kernels.integer.values())
    if found < weights:
        raise VitopsError(
            f"the float model has {weights} products with weights, but the optimised quantized graph has only {found} "
            f"integer kernels ({kernels.integer}): some weights are hidden in another fused operator"
        )
