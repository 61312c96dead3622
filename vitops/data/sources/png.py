"""A PNG writer whose bytes depend on the pixels alone: stored (uncompressed) blocks, filter 0, no metadata.

Compressing encoders give other bytes with every build of zlib; that would make dataset digests depend on the machine.
Format: PNG specification (RFC 2083), zlib RFC 1950, deflate RFC 1951 section 3.2.4.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_STORED = 65535


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """PNG bytes of (H, W) greyscale or (H, W, 3) RGB pixels. Raises ValueError for another shape."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"expected (H, W) or (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)  # (H, W * channels)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    colour = 0 if pixels.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(filtered)) + _chunk(b"IEND", b"")


def _stored(data: bytes) -> bytes:
    blocks = [b"\x78\x01"]
    for start in range(0, len(data), _STORED):
        block = data[start : start + _STORED]
        last = start + _STORED >= len(data)
        blocks.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    return b"".join([*blocks, struct.pack(">I", zlib.adler32(data))])


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
