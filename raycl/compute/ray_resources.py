"""Whether a cluster can ever give what is asked, and what it has free.

A request no node could hold is an error after a bounded wait, because nodes may still be
joining; where Ray's autoscaler runs it is only a warning, because a node may be bought.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import ray as untyped_ray

from raycl.compute.pool import Resources
from raycl.errors import ClusterError, StoppedError
from raycl.observe.events import Observer, Warned

_STEP_SECONDS = 0.5
ray: Any = untyped_ray


def wait_until_possible(
    resources: Resources, *, patience: float, observer: Observer, stopping: Callable[[], bool]
) -> None:
    """Returns once some node could hold the request, busy or not."""
    if _possible(resources):
        return
    deadline = time.monotonic() + patience
    grows = _autoscaler_runs()
    if grows or patience > 0:
        who = "the autoscaler" if grows else "a node that may still join"
        observer(Warned(f"no node has {resources}; waiting for {who}. {_nodes_have()}"))
    while not _possible(resources):
        if stopping():
            raise StoppedError("stopped while waiting for a node", got=str(resources))
        if not grows and time.monotonic() >= deadline:
            raise ClusterError(
                "no node of the cluster can ever hold what is asked",
                got=str(resources),
                do=f"ask for less or add a node. {_nodes_have()}",
            )
        time.sleep(_STEP_SECONDS)


def what_is_free() -> str:
    """The free resources of the cluster, for a person."""
    free = ray.available_resources()
    return str(Resources(max(0.0, free.get("CPU", 0)), max(0.0, free.get("GPU", 0))))


def cluster_cpus() -> int:
    """All CPUs of the cluster, at least one."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _node_shares() -> list[Resources]:
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return [Resources(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes]


def _possible(resources: Resources) -> bool:
    return any(
        node.cpus >= resources.cpus and node.gpus >= resources.gpus for node in _node_shares()
    )


def _nodes_have() -> str:
    return "The nodes have: " + ("; ".join(map(str, _node_shares())) or "there is none") + "."


def _autoscaler_runs() -> bool:
    # Ray has no public question for this; both answers below are where its own tools look.
    with contextlib.suppress(Exception):
        from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
        from ray.experimental.internal_kv import _internal_kv_get

        report = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
        if report and b'"autoscaler_report"' in report:
            return True
    with contextlib.suppress(Exception):
        from ray.autoscaler.v2.utils import is_autoscaler_v2

        return bool(is_autoscaler_v2(fetch_from_server=True))
    return False
