"""One decoded image as 8-bit RGB, the same for profiling, training and prediction."""

from PIL import Image

_DEEP = ("I", "F")
"""First letters of Pillow's modes with more than 8 bits per channel; its conversion would clip them to white."""


def rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB. Raises ValueError for more than 8 bits per channel, and what Pillow raises."""
    if image.mode.startswith(_DEEP):
        raise ValueError("it has more than 8 bits per channel: convert it to 8 bits")
    return image.convert("RGB")
