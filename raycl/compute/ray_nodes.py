"""A function called once on every node of a cluster, whatever else the node does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray as untyped_ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raycl.compute.ray_drain import draining
from raycl.compute.ray_session import require_connection

LONGEST_SECONDS = 120.0
"""For all nodes together: each starts a Python of its own first."""
_GROUP_LABEL = "ray.io/node-group"

ray: Any = untyped_ray


@dataclass(frozen=True)
class NodeAnswer:
    """What one node said."""

    node: str
    """Its address."""
    cpus: float
    gpus: float
    grows: bool
    """Whether it belongs to a group that an autoscaler makes larger."""
    value: Any = None
    error: str | None = None


def on_each_node(
    function: Callable[[Any], Any],
    argument: Any,
    *,
    others_only: bool = False,
    seconds: float = LONGEST_SECONDS,
) -> list[NodeAnswer]:
    """The answers of all nodes that stay, or of all those but this process's own."""
    require_connection()
    own = ray.get_runtime_context().get_node_id()
    # Nothing is placed on a node that is draining: it would never answer.
    left_out = draining(fresh=True) | ({own} if others_only else set())
    nodes = [n for n in ray.nodes() if n["Alive"] and n["NodeID"] not in left_out]
    task = ray.remote(num_cpus=0, max_retries=1)(_call)
    asked = {}
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[task.options(scheduling_strategy=place).remote(function, argument)] = node
    if not asked:
        return []
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
    return [_answer(node, reference, reference in done) for reference, node in asked.items()]


def _call(function: Callable[[Any], Any], argument: Any) -> Any:
    return function(argument)


def _answer(node: dict[str, Any], reference: Any, done: bool) -> NodeAnswer:
    value: Any = None
    error: str | None = None
    if not done:
        ray.cancel(reference, force=True)
        error = "did not answer in time"
    else:
        try:
            value = ray.get(reference)
        except ray.exceptions.RayError as failure:
            error = str(failure).strip().splitlines()[-1]
    total = node["Resources"]
    return NodeAnswer(
        node=str(node["NodeManagerAddress"]),
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        grows=_GROUP_LABEL in node.get("Labels", {}),
        value=value,
        error=error,
    )
