"""Claims: of all machines that share a store one computes a stage key, and one that was given up cannot publish.

    claims/<key>/<token>       who holds the key, and its lease: the seconds it may be silent
    claims/<key>/<token>.beat  a count that the holder raises three times in every lease
    claims/<key>/<token>.done  the holder has ended, well or not

Laws: tokens only grow, and each is created by one holder alone, so the latest token is the claim that holds. A waiter
gives a holder up when its beat has not changed for a whole lease by the waiter's own monotonic clock; no two clocks
are ever compared, and neither a process id nor a host name decides anything. A holder counts its lease from before its
last successful beat, so it knows no later than the waiters that it has lapsed; a claim that has lapsed, or that a later
one has followed, never holds again. Whoever got a token removes the older ones; the latest always stays.
"""

import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from vitops.errors import Interrupted, VitopsError
from vitops.store import canonical
from vitops.store.objects import Objects

LEASE = 60.0
"""Seconds after which a silent holder is given up."""
_FAREWELL = 3.0
"""Seconds that the end of a claim waits for a server to hear of it."""
_MOST_PATIENT = 1.0
"""Seconds between two looks of a waiter, at most."""
_TOKEN = re.compile(r"\d{8}")
log = logging.getLogger(__name__)


class Claim:
    """One token, held from ``claimed`` until its block ends."""

    def __init__(self, table: "_Table", token: int, *, lease: float, lost: Callable[[], None], since: float) -> None:
        self.token = token
        self._table, self._lease, self._tell = table, lease, lost
        self._alive_at = since
        self._loss: str | None = None
        self._guard = threading.Lock()
        self._over = threading.Event()
        threading.Thread(target=self._live, name="claim", daemon=True).start()

    def check(self) -> None:
        """Raises Interrupted, now and for ever after, once the claim does not hold; VitopsError if nobody can say."""
        if self._loss is None and not self._lapsed():
            latest = self._table.latest().token
            if latest != self.token:
                self._lose(f"another run has taken it over, or its claim was removed ({self.token}, found {latest})")
        self.check_known()

    def check_known(self) -> None:
        """As ``check``, for what is known without asking the store."""
        self._lapsed()
        if self._loss is not None:
            raise Interrupted(
                f"{self._loss}, so this run publishes nothing of it. Run the same command again: it waits for whoever "
                "computes the stage now and takes that result, or goes on from the last checkpoint."
            )

    def end(self) -> None:
        """Let the waiters go on at once; where the server hears nothing within seconds, they wait for the lease."""
        self._over.set()
        farewell = threading.Thread(target=self._finish, name="farewell", daemon=True)
        farewell.start()
        farewell.join(_FAREWELL)

    def _finish(self) -> None:
        with suppress(VitopsError):
            self._table.finish(self.token)

    def _live(self) -> None:
        """Raise the count until the end, or until the claim is lost."""
        count = 0
        while not self._over.wait(self._lease / 3) and self._loss is None:
            began, count = time.monotonic(), count + 1
            try:
                self._table.beat(self.token, count)
                self._alive_at = began
                self.check()
            except Interrupted as error:
                log.warning("%s", error)
            except VitopsError as error:
                log.warning("no sign of life could be given: %s", error)
                self._lapsed()

    def _lapsed(self) -> bool:
        silent = time.monotonic() - self._alive_at
        if silent > self._lease:
            self._lose(
                f"the claim on {self._table.url} has lapsed: the store took no sign of life for {silent:.0f} s and the "
                f"lease is {self._lease:.0f} s"
            )
        return silent > self._lease

    def _lose(self, why: str) -> None:
        with self._guard:
            first, self._loss = self._loss is None, self._loss or why
        if first:
            self._tell()


@contextmanager
def claimed(
    objects: Objects,
    key: str,
    *,
    place: str,
    waiting: Callable[[], None],
    lost: Callable[[], None],
    lease: float | None = None,
) -> Iterator[Claim]:
    """Hold the latest claim on the key for the block, waiting for it.

    ``place`` names what only one living process can hold at a time (a local lock): an earlier holder at the same place
    is dead for certain, and nobody waits for its lease. ``waiting`` is called between two looks and may raise;
    ``lost``, once, from any thread, when the claim is lost. ``lease`` in seconds (default ``LEASE``). Raises
    VitopsError when the store does not answer.
    """
    lease = lease or LEASE
    table = _Table(objects, key)
    ticket = _ticket(place, lease)
    token, since = _take(table, ticket, place=place, lease=lease, waiting=waiting)
    claim = Claim(table, token, lease=lease, lost=lost, since=since)
    try:
        table.clear(below=token)
        yield claim
    finally:
        claim.end()


@dataclass(frozen=True)
class _Latest:
    """The latest token, 0 if there is none, and whether nobody holds it any more."""

    token: int
    free: bool


class _Table:
    """The objects of one key's claims."""

    def __init__(self, objects: Objects, key: str) -> None:
        self._objects, self._prefix = objects, f"claims/{key}/"
        self.url = f"{objects.url}/claims/{key}"

    def latest(self) -> _Latest:
        names = self._names()
        token = max((int(name) for name in names if _TOKEN.fullmatch(name)), default=0)
        return _Latest(token, free=not token or f"{token:08d}.done" in names)

    def create(self, token: int, ticket: bytes) -> bool:
        return self._objects.create(f"{self._prefix}{token:08d}", ticket)

    def read(self, token: int) -> dict[str, Any]:
        """What the claim says of its holder; nothing if it is gone or illegible."""
        try:
            said = json.loads(self._objects.read(f"{self._prefix}{token:08d}") or b"{}")
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    def beat(self, token: int, count: int) -> None:
        self._objects.write(f"{self._prefix}{token:08d}.beat", str(count).encode())

    def heard(self, token: int) -> bytes | None:
        return self._objects.read(f"{self._prefix}{token:08d}.beat")

    def finish(self, token: int) -> None:
        self._objects.write(f"{self._prefix}{token:08d}.done", b"")

    def give_back(self, token: int) -> None:
        self._objects.remove(f"{self._prefix}{token:08d}")

    def clear(self, *, below: int) -> None:
        """Remove what older claims left."""
        for name in self._names():
            if _TOKEN.fullmatch(name[:8]) and int(name[:8]) < below:
                self._objects.remove(self._prefix + name)

    def _names(self) -> set[str]:
        return {name.removeprefix(self._prefix) for name in self._objects.sizes(self._prefix)}


class _Watch:
    """How long a claim has shown no sign of life, as this process alone can tell."""

    def __init__(self) -> None:
        self._sign: object = None
        self._since = 0.0

    def silence(self, sign: object, *, asked: float, answered: float) -> float:
        """Seconds for which the sign has certainly been the same."""
        if sign != self._sign:
            self._sign, self._since = sign, answered
        return max(0.0, asked - self._since)


def _take(table: _Table, ticket: bytes, *, place: str, lease: float, waiting: Callable[[], None]) -> tuple[int, float]:
    """Wait until nobody holds the key, then be the one who gets the next token; and when it was asked for."""
    watch, told = _Watch(), 0
    while True:
        latest = table.latest()
        if latest.free or _given_up(table, latest.token, watch, place=place, lease=lease):
            asked, token = time.monotonic(), latest.token + 1
            if table.create(token, ticket):
                if table.latest().token == token:
                    return token, asked
                table.give_back(token)  # so slow that later claims came and cleared the older ones away
            continue
        waiting()
        if told != latest.token:
            told, holder = latest.token, _described(table.read(latest.token))
            log.warning("waiting for claim %d on %s, held by %s", latest.token, table.url, holder)
        time.sleep(min(_MOST_PATIENT, lease / 20))


def _given_up(table: _Table, token: int, watch: _Watch, *, place: str, lease: float) -> bool:
    said = table.read(token)
    if said.get("place") == place:
        return True
    asked = time.monotonic()
    sign = (token, table.heard(token))
    return watch.silence(sign, asked=asked, answered=time.monotonic()) > float(said.get("lease", lease))


def _ticket(place: str, lease: float) -> bytes:
    """A claim's bytes: like no other's, so that whoever reads them back knows that it was itself who created them."""
    who = {"host": socket.gethostname(), "pid": os.getpid()}
    return canonical.dumps({"ticket": uuid.uuid4().hex, "place": place, "lease": lease, **who})


def _described(said: dict[str, Any]) -> str:
    return f"process {said['pid']} on {said['host']}" if {"pid", "host"} <= said.keys() else "an unknown process"
