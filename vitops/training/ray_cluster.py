"""The Ray cluster of a run: one inside this machine, or the one that ``RAY_ADDRESS`` names; and what it has room for.

Laws: a training has a power of two of workers, never more than configured and never fewer than allowed. A worker needs
all it takes on one node, so room is counted node by node: two nodes that are half free have no place.
"""

import os
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vitops.config.pipelines import Resources
from vitops.errors import UsageError, VitopsError

_TRAIN = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
_QUIET = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "20000",
    "RAY_num_workers_soft_limit": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_worker_niceness": "0",
}
"""For a cluster inside this machine: Ray's own watching would cost a good part of a core.

Workers that nobody needs go home after 20 s: each wakes a hundred times a second.
"""


@contextmanager
def connected(resources: Resources) -> Iterator[None]:
    """Ray for the block; enter it in the main thread. Signal handlers stay those of the caller.

    Raises UsageError or VitopsError when ``RAY_ADDRESS`` names no cluster that can be used.
    """
    address = _address()
    os.environ.update(_TRAIN, RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=str(resources.node_deadline_seconds))
    if not address:
        os.environ.update(_QUIET)
    import ray

    saved = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if address:
            _join(address)
        else:
            ray.init(
                address="local",  # also where another cluster, not of this run, was started on this machine
                include_dashboard=False,
                configure_logging=False,
                log_to_driver=False,
                object_store_memory=100 * 2**20,
                num_cpus=resources.workers + 1,
            )
        for number, handler in saved.items():
            signal.signal(number, handler)
        yield
    finally:
        ray.shutdown()


def resources_per_worker(resources: Resources) -> dict[str, float]:
    """What one worker takes."""
    return {"CPU": 1, "GPU": 1} if resources.device == "cuda" else {"CPU": 1}


def room(resources: Resources) -> int:
    """How many more workers the alive nodes have free resources for."""
    from ray._private.state import available_resources_per_node  # Ray's public call adds the nodes up

    free = available_resources_per_node()
    return places_on([free.get(node["NodeID"], {}) for node in _alive()], resources)


def capacity(resources: Resources) -> int:
    """How many workers the alive nodes could hold if nothing else ran on them."""
    return places_on([node["Resources"] for node in _alive()], resources)


def places_on(nodes: Iterable[Mapping[str, float]], resources: Resources) -> int:
    """How many workers fit on nodes that have so much of each resource."""
    needed = resources_per_worker(resources)
    return sum(min(int(node.get(name, 0) // number) for name, number in needed.items()) for node in nodes)


def alive_nodes() -> dict[str, str]:
    """Node id -> host name and address."""
    return {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in _alive()}


def workers_for(resources: Resources, places: int) -> int | None:
    """The most workers that a training may have with so many places; None if there are too few."""
    workers = resources.workers
    while workers > places:
        workers //= 2
    return workers if workers >= resources.fewest_workers else None


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _address() -> str | None:
    """The cluster that the user names. Raises UsageError for an address of Ray Client or of a job server."""
    address = os.environ.get("RAY_ADDRESS")
    if address and "://" in address:
        raise UsageError(
            f"RAY_ADDRESS={address}: a run is started on a node of the cluster, whose address is HOST:PORT (or auto)"
        )
    return address


def _join(address: str) -> None:
    import ray

    try:
        _knock(address)
        ray.init(address=address, configure_logging=False, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise VitopsError(
            f"RAY_ADDRESS={address}: no Ray cluster can be used there ({error}). Start it, or unset RAY_ADDRESS: the "
            "run then starts workers on this machine."
        ) from error


def _knock(address: str) -> None:
    """Raise OSError or ValueError unless somebody listens there; Ray itself would try for minutes."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5):
            pass
