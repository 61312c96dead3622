"""Several requests to a server at once.

Laws: answers come in the order of the items; no more items are taken than requests are under way; none is under way any
more when the last answer was given or the first failure raised. The threads are daemons: a process that ends waits for
no silent server.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
WIDTH = 4
"""Requests at once."""


def side_by_side(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What ``work`` makes of each item. Raises what it raises."""
    under_way: deque[Future[R]] = deque()
    try:
        for item in items:
            under_way.append(_begun(work, item))
            if len(under_way) == WIDTH:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        wait(under_way)


def _begun(work: Callable[[T], R], item: T) -> Future[R]:
    answer: Future[R] = Future()

    def run() -> None:
        try:
            answer.set_result(work(item))
        except BaseException as error:  # noqa: BLE001 - whoever asks for the answer gets it
            answer.set_exception(error)

    threading.Thread(target=run, name="request", daemon=True).start()
    return answer
