"""A model that was trained elsewhere: its architecture, what it expects, what its outputs mean, and where it lies."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from vitops.config.base import JSON, KeyProblem, Section
from vitops.config.models import Model, TimmModel
from vitops.config.training import Preprocessing

FILE_PATTERN = r"\.safetensors$"
TIMM_PATTERN = r"^[A-Za-z0-9_]+\.[A-Za-z0-9_.-]+$"
SHA256_PATTERN = "^[a-f0-9]{64}$"
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN)]


class WeightsFile(Section):
    """A safetensors file. Its digest is in the stage key, its place is not."""

    file: str = Field(min_length=1, pattern=FILE_PATTERN)
    """Path, from the project's folder or absolute. Other formats are not read: they can run code."""
    sha256: Sha256
    """As ``sha256sum`` prints it."""


class TimmWeights(Section):
    """Weights that timm publishes on the Hugging Face hub: from its local cache, or by a download before the run."""

    timm: str = Field(pattern=TIMM_PATTERN)
    """Architecture and tag, e.g. ``resnet34.a1_in1k``; ``timm.list_pretrained()`` lists them."""
    sha256: Sha256 | None = None
    """Of its ``model.safetensors``, as the hub shows it; null trusts the name. The receipt has what was read."""


def _source(value: Any) -> str:
    return "[timm]" if isinstance(value, TimmWeights) or (isinstance(value, dict) and "timm" in value) else "[file]"


Weights = Annotated[
    Annotated[WeightsFile, Tag("[file]")] | Annotated[TimmWeights, Tag("[timm]")], Discriminator(_source)
]


class Pretrained(Section):
    """A model whose weights come from a file or from timm; the stage makes a model artifact of them."""

    model: Model
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None = Field(None, min_length=2)
    """Name of each output in order, where they are not the dataset's classes in its order. What the dataset does not
    have is left out; what it has must be there."""
    weights: Weights

    @model_validator(mode="after")
    def _consistent(self) -> "Pretrained":
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise KeyProblem("classes", "must name each output differently")
        if isinstance(self.weights, TimmWeights):
            architecture = self.weights.timm.partition(".")[0]
            if not isinstance(self.model, TimmModel):
                raise KeyProblem("model.kind", "must be timm: weights.timm names weights of timm's own architectures")
            if self.model.name != architecture:
                raise KeyProblem("model.name", f"must be {architecture}, whose weights weights.timm names")
            for knob, published in (("head", "linear"), ("stem", "published")):
                if getattr(self.model, knob) != published:
                    raise KeyProblem(f"model.{knob}", f"must be {published}: timm has no weights for another")
        return self

    def identity(self) -> JSON:
        """``parameters`` without the place of the file."""
        values = self.parameters()
        values["weights"].pop("file", None)
        return values
