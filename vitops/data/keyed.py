"""Randomness as a pure function of names: the same parts give the same stream in every process, whatever ran before.

``derive`` needs the standard library alone; torch and numpy are imported where a stream is opened.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(*parts: int | str) -> int:
    """A 63-bit seed from the parts (first 8 bytes of SHA-256 of their repr; never ``hash``, which is salted)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(*parts: int | str) -> Iterator["torch.Generator"]:
    """Seed torch, numpy and random for the block, hand out an independent generator, restore all three after it."""
    import numpy as np
    import torch

    seed = derive(*parts)
    outer_numpy, outer_random = np.random.get_state(), random.getstate()
    accelerators = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    with torch.random.fork_rng(devices=accelerators):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack trace on machines without CUDA
        if accelerators:
            torch.cuda.manual_seed_all(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        random.seed(seed)
        try:
            yield torch.Generator().manual_seed(derive("generator", *parts))
        finally:
            np.random.set_state(outer_numpy)
            random.setstate(outer_random)
