"""Prediction from a package with ONNX Runtime, numpy and Pillow: no torch, and nothing runs unchecked."""

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitops.data.pixels import rgb
from vitops.errors import UsageError, VitopsError
from vitops.evaluation.onnx_session import session
from vitops.packaging.folder import ONNX_FILES, open_package
from vitops.packaging.preprocess import Preprocess
from vitops.packaging.text import printable

_DECODE_ERRORS = (
    OSError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    SyntaxError,  # Pillow's PNG reader raises it for broken chunks
    ValueError,
    struct.error,
)


@dataclass(frozen=True)
class Guess:
    """One class with its softmax probability in [0, 1]."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The classes of one image, most probable first."""

    image: Path
    guesses: tuple[Guess, ...]

    def to_json(self) -> dict[str, Any]:
        """``{"image", "top": [{"class", "label", "probability"}]}``."""
        top = [{"class": g.name, "label": g.label, "probability": round(g.probability, 6)} for g in self.guesses]
        return {"image": str(self.image), "top": top}


class PackagePredictor:
    """A verified package, ready to predict. ``model`` is ``int8`` or ``fp32``."""

    def __init__(self, package: Path, *, model: str = "int8") -> None:
        """Raises VerificationError when a file that prediction uses is not the one the receipt names."""
        if model not in ONNX_FILES:
            raise UsageError(f"--model must be one of {', '.join(ONNX_FILES)}, got {printable(model)!r}")
        folder = open_package(package)
        self.preprocess = Preprocess.from_json(folder.read_json("preprocessing.json"))
        self.classes: list[str] = folder.read_json("model.json").get("classes", [])
        self._session = session(folder.read(ONNX_FILES[model]))
        self._input = self._session.get_inputs()[0].name

    def predict(self, image: Path, *, top: int = 5) -> Prediction:
        """The ``top`` classes of one image file. Raises UsageError naming the file when it is no readable image."""
        x = self.preprocess(read_image(image))
        logits: npt.NDArray[np.float32] = self._session.run(["logits"], {self._input: x})[0][0]  # (C,)
        if len(logits) != len(self.classes):
            raise VitopsError(f"the model has {len(logits)} outputs but the package names {len(self.classes)} classes")
        probabilities = _softmax(logits)
        order = np.argsort(-probabilities, kind="stable")[:top]
        return Prediction(image, tuple(Guess(int(i), self.classes[i], float(probabilities[i])) for i in order))


def predict(package: Path, images: Sequence[Path], *, model: str = "int8", top: int = 5) -> list[Prediction]:
    """Top classes of every image file, in the order given."""
    predictor = PackagePredictor(package, model=model)
    return [predictor.predict(image, top=top) for image in images]


def read_image(path: Path) -> Image.Image:
    """A JPEG or PNG file as RGB, decoded like the training images.

    Raises UsageError naming the file when it is missing, truncated or no such image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("JPEG", "PNG")) as image:
                return rgb(image)
    except _DECODE_ERRORS as error:
        reason = printable(str(error)).replace(printable(str(path)), "the file")
        raise UsageError(f"{printable(str(path))} is no readable image: {reason}. Give a PNG or JPEG file") from error


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(shifted / shifted.sum())
