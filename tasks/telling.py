"""What Prefect is told beside the states of a run: artifacts for its UI.

Law: they are told, not asked; a server that does not answer costs the run a line in its log and nothing else.
"""

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import httpx

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)


def tell(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
    """What ``call(*args, **kwargs)`` returns, or None where Prefect's server does not answer."""
    try:
        return call(*args, **kwargs)
    except httpx.HTTPError as error:
        log.warning("the Prefect server does not answer (%s); the run goes on without telling it", error)
        return None
