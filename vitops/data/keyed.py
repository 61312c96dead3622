"""Randomness as a pure function of names: the same parts give the same stream in every process, whatever ran before."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(*parts: int | str) -> int:
    """A 63-bit seed from the parts (first 8 bytes of SHA-256 of their repr; never ``hash``, which is salted)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(*parts: int | str) -> Iterator[torch.Generator]:
    """Seed torch, numpy and random for the block, hand out a generator of the same key, restore all three after it."""
    seed = derive(*parts)
    outer_numpy, outer_random = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        random.seed(seed)
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            np.random.set_state(outer_numpy)
            random.setstate(outer_random)
