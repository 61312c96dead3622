"""Small images and archives of class folders, made on the spot."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Files = dict[str, bytes]


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """An encoded image whose pixels follow from its number."""

    def make(number: int, side: int = 16, kind: str = "PNG") -> bytes:
        pixels = np.random.RandomState(number).randint(0, 256, (side, side, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        return stream.getvalue()

    return make


@pytest.fixture
def samples(picture: Callable[..., bytes]) -> Files:
    """Two classes in two subsets, five images."""
    return {
        "set/train/cat/1.png": picture(1),
        "set/train/cat/2.jpg": picture(2, kind="JPEG"),
        "set/train/dog/1.png": picture(3),
        "set/test/cat/1.png": picture(4),
        "set/test/dog/1.jpeg": picture(5, kind="JPEG"),
    }


@pytest.fixture
def write_tar() -> Callable[..., Path]:
    """Writes a tar of the files, and of extra members given as TarInfo."""

    def write(path: Path, files: Files, *extra: tarfile.TarInfo) -> Path:
        with tarfile.open(path, "w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            for member in extra:
                tar.addfile(member)
        return path

    return write


@pytest.fixture
def write_folder() -> Callable[[Path, Files], Path]:
    """Writes the files below a folder."""

    def write(path: Path, files: Files) -> Path:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path

    return write
