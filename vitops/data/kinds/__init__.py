"""Task kinds: what a sample is made of. Everything else sees a dict of named tensors.

Laws: a kind's training transform draws all its randomness from torch's, numpy's and ``random``'s global state, which
the stream seeds for each micro-batch; its evaluation transform draws none. Kinds stand in a table of dotted names and
are imported on use, so that one more of them changes no stage key of the others.
"""

import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vitops.config.training import Preprocessing, Recipe

Sample = dict[str, Tensor]
Decoded = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

IMPLEMENTATIONS = {"classification": "vitops.data.kinds.classification:Classification"}
"""Task name (``task:`` of a dataset) to the class that knows it: a code root of every stage that reads samples."""


class TrainBatch(Protocol):
    """A micro-batch with augmentation; ``mix`` lets it mix samples where the recipe says how."""

    def __call__(self, images: Sequence[Decoded], labels: Labels, *, mix: bool) -> Sample: ...


EvalBatch = Callable[[Sequence[Decoded], Labels], Sample]


class TaskKind(Protocol):
    """What a task kind alone knows."""

    def decode(self, data: bytes) -> Decoded:
        """One member's bytes as an array. Raises ValueError when they cannot be decoded."""
        ...

    def train_batch(self, recipe: Recipe, *, classes: int) -> TrainBatch:
        """The training transform of ``recipe``."""
        ...

    def eval_batch(self, preprocessing: Preprocessing) -> EvalBatch:
        """The transform without randomness."""
        ...

    def groups(self, train_counts: Sequence[int], **thresholds: Any) -> dict[str, list[int]]:
        """The groups of classes that ``score`` tells apart; ``thresholds``: the fields of the ``evaluate`` section."""
        ...

    def score(
        self, output: Tensor, target: Tensor, *, train_counts: Sequence[int], **thresholds: Any
    ) -> dict[str, Any]:
        """The numbers that judge a model of this kind by one head's ``output`` for a whole subset.

        ``overall`` (higher is better, in percent, or None) is the one that gates compare.
        """
        ...

    def export_inputs(self, preprocessing: Preprocessing) -> dict[str, tuple[int, ...]]:
        """Name and shape (without the batch) of each input of an exported model."""
        ...


def kind(task: str) -> TaskKind:
    """The task kind called ``task``. Raises ValueError naming the known ones."""
    if task not in IMPLEMENTATIONS:
        raise ValueError(f"unknown task kind {task!r}; known: {', '.join(sorted(IMPLEMENTATIONS))}")
    found: type[TaskKind] = pkgutil.resolve_name(IMPLEMENTATIONS[task])
    return found()
