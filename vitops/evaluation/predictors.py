"""Logits per head of a model over a subset of a split, whatever form the model has.

A torch model and its ONNX export are asked the same question and answer in the same shape: head name -> (N, C).
The ``mean`` head is the average of the logits, not of the probabilities (DeiT-LT, evaluation protocol).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vitops.config.training import Preprocessing
from vitops.data.loader import SplitReader, eval_batches
from vitops.errors import VitopsError
from vitops.evaluation.onnx_session import session
from vitops.models.heads import heads

Heads = dict[str, Tensor]
Predictor = Callable[[Tensor], Heads]

_HEAD_OF_OUTPUT = {"logits": "mean", "cls": "cls", "dist": "dist"}


@dataclass(frozen=True)
class Predictions:
    """``logits``: head -> (N, C); ``targets``: (N,), both in the index order of the subset."""

    logits: Heads
    targets: Tensor


def torch_predictor(model: nn.Module) -> Predictor:
    """Heads of ``model`` in evaluation mode, without gradients."""
    model.eval()

    def predict(x: Tensor) -> Heads:
        with torch.inference_mode():
            return heads(model, x)

    return predict


def onnx_predictor(path: Path) -> Predictor:
    """Heads of an ONNX file: output ``logits`` is the mean head, ``cls`` and ``dist`` stand beside it where present.

    Raises VitopsError when the file has not exactly one input or no ``logits`` as first output.
    """
    run = session(path)
    inputs, outputs = [node.name for node in run.get_inputs()], [node.name for node in run.get_outputs()]
    if len(inputs) != 1 or outputs[:1] != ["logits"]:
        raise VitopsError(f"{path} must have one input and `logits` as first output, got {inputs} -> {outputs}")
    wanted = [name for name in outputs if name in _HEAD_OF_OUTPUT]

    def predict(x: Tensor) -> Heads:
        arrays = run.run(wanted, {inputs[0]: x.contiguous().numpy()})
        return {_HEAD_OF_OUTPUT[name]: torch.from_numpy(array) for name, array in zip(wanted, arrays, strict=True)}

    return predict


def predictions(predictor: Predictor, batches: Iterable[dict[str, Tensor]]) -> Predictions:
    """Logits of every head over ``batches`` of ``input`` (b, 3, H, W) and ``target`` (b,)."""
    found: dict[str, list[Tensor]] = {}
    targets: list[Tensor] = []
    for batch in batches:
        for head, logits in predictor(batch["input"]).items():
            found.setdefault(head, []).append(logits.float())
        targets.append(batch["target"])
    if not targets:
        raise VitopsError("there is no sample to predict: the subset is empty")
    return Predictions({head: torch.cat(parts) for head, parts in found.items()}, torch.cat(targets))


def subset_predictions(
    predictor: Predictor, reader: SplitReader, *, subset: str, preprocessing: Preprocessing
) -> Predictions:
    """``predictions`` over a subset (``val`` or ``test``) of an open split."""
    return predictions(predictor, eval_batches(reader, subset, preprocessing))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run torch with ``count`` threads, then as before: the number of threads changes how sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
