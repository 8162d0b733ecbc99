"""How much room this node's object store has.

Ray itself never refuses: past its limit it spills to disk and, where views pin what it
holds, falls back to files. So whoever shares gigabytes asks here first. The figure is the
raylet's own and up to a second old.
"""

from __future__ import annotations

import os
from typing import Any

import ray

from raycl.compute.ray_session import require_connection

_MEMORY = "object_store_memory"
SHARED_MEMORY = "/dev/shm"
"""Where Ray maps its store."""


def free_bytes() -> int | None:
    """Bytes that fit into this node's store without spilling; None if Ray does not say."""
    require_connection()
    node = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    capacity = next((n["Resources"].get(_MEMORY) for n in nodes if n["NodeID"] == node), None)
    free = _available(node)
    if capacity is None or free is None:
        return None
    shm = _shared_memory()
    # Where /dev/shm is smaller than the store, Ray has put the store elsewhere.
    if shm is not None and shm[0] >= capacity:
        free = min(free, shm[1])
    return int(free)


def _available(node: str) -> float | None:
    from ray._private import state

    per_node: dict[str, dict[str, Any]] = state.available_resources_per_node()  # type: ignore[no-untyped-call]
    # A store that is full to the last byte is left out of the list.
    return None if node not in per_node else float(per_node[node].get(_MEMORY, 0.0))


def _shared_memory() -> tuple[int, int] | None:
    """Size and free bytes of /dev/shm."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
