"""Whether a cluster can give what is asked, watched while an actor has not started.

A request that no node could hold is an error after a bounded wait: at once on a Ray of our
own, soon on a fixed cluster (nodes may still be joining), late on one whose nodes come
from a launcher or KubeRay, where the autoscaler may be buying one for us. It learns of our
need from the waiting actor, so the watch begins after the actor was asked for.
"""

from __future__ import annotations

import time
from typing import Any

import ray as untyped_ray

from raycl.compute.pool import Resources
from raycl.compute.ray_drain import draining
from raycl.errors import ClusterError
from raycl.observe.events import Observer, Warned

FIXED_SECONDS = 20.0
GROWING_SECONDS = 600.0
BUSY_SECONDS = 20.0
_GROUP_LABEL = "ray.io/node-group"

ray: Any = untyped_ray


class StartWatch:
    """Asked again and again while something has not started; warns once, or raises."""

    def __init__(
        self, who: str, resources: Resources, observer: Observer, patience: float | None = None
    ) -> None:
        self._who = who
        self._asked = resources
        self._observer = observer
        self._patience = _default_patience() if patience is None else patience
        self._since = time.monotonic()
        self._warned = False

    def check(self) -> None:
        """Raises once there is no hope left."""
        waited = time.monotonic() - self._since
        if _possible(self._asked):
            if waited >= BUSY_SECONDS:
                self._warn(
                    f"{self._who} waits for {self._asked}; {what_is_free()} is free in the cluster"
                )
            return
        if waited >= self._patience:
            raise ClusterError(
                "no node of the cluster can ever hold what is asked",
                got=str(self._asked),
                do=f"ask for less or add a node. {_nodes_have()}",
            )
        self._warn(f"{self._who} waits for a node with {self._asked}. {_nodes_have()}")

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            self._observer(Warned(message))


def cluster_cpus() -> int:
    """All CPUs of the cluster, at least one."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def what_is_free() -> Resources:
    """What nobody holds at the moment, over all nodes."""
    free = ray.available_resources()
    return Resources(max(0.0, free.get("CPU", 0)), max(0.0, free.get("GPU", 0)))


def _default_patience() -> float:
    grows = any(_GROUP_LABEL in node.get("Labels", {}) for node in _alive())
    return GROWING_SECONDS if grows else FIXED_SECONDS


def _possible(asked: Resources) -> bool:
    return any(node.cpus >= asked.cpus and node.gpus >= asked.gpus for node in _shares())


def _shares() -> list[Resources]:
    totals = (node["Resources"] for node in _alive())
    return [Resources(total.get("CPU", 0), total.get("GPU", 0)) for total in totals]


def _alive() -> list[dict[str, Any]]:
    going = draining()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in going]


def _nodes_have() -> str:
    return "The nodes have: " + ("; ".join(map(str, _shares())) or "there is none") + "."
