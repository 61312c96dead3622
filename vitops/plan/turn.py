"""Whose turn it is: of all runs that want one stage key, one computes it; the others wait and take its result.

Laws: on one home a file lock decides, which a death frees; where several homes share a store, a claim decides as well
(``store.claims``), and a run that lost its claim publishes nothing: it is asked to stop, and its turn refuses before
the artifact and again before the receipt.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vitops.store.artifacts import Store
from vitops.store.claims import claimed
from vitops.store.process import boot_id


@dataclass(frozen=True)
class Turn:
    """The right to compute one stage key and to publish what comes of it."""

    check: Callable[[], None]
    """Raises Interrupted once another run has the turn, VitopsError if nobody can say."""
    check_known: Callable[[], None]
    """Raises Interrupted if this run knows already that another one has it; no server is asked."""


ALWAYS = Turn(check=lambda: None, check_known=lambda: None)
"""A turn that nobody can lose before the process ends."""


@contextmanager
def local_turn(store: Store, key: str, *, wait: Callable[[], None]) -> Iterator[None]:
    """Hold the key against all other runs on this home for the block; ``wait`` is called between looks, may raise."""
    with store.lock(key, waiting=wait):
        yield


@contextmanager
def shared_turn(store: Store, key: str, *, wait: Callable[[], None], lost: Callable[[], None]) -> Iterator[Turn]:
    """Within a ``local_turn``, hold the key also against the runs on other homes.

    ``wait`` as there; ``lost`` is called once, from any thread, when the turn is lost. Raises VitopsError where the
    shared store does not answer.
    """
    if store.shared is None:
        yield ALWAYS
        return
    with claimed(store.shared, key, place=_place(store.lock_file(key)), waiting=wait, lost=lost) as claim:
        yield Turn(check=claim.check, check_known=claim.check_known)


def _place(lock: Path) -> str:
    """A name that two lock files have only if no two processes can hold both at the same time."""
    found = lock.stat()
    return f"{boot_id()}:{found.st_dev}:{found.st_ino}"
