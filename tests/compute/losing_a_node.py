"""A learner and a map whose node is taken away, in a cluster of three nodes.

python -m tests.compute.losing_a_node FOLDER     prints one JSON object
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import ray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.cluster_utils import Cluster

from raycl.compute import LearnerContext, StopRequest
from raycl.compute.ray_learner import host
from raycl.compute.ray_session import connect
from raycl.observe.events import Computed, Event, WorkerLost
from tests.compute.workers import lives, wait_for

QUICK_DETECTION = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 2,
}


def learn(context: LearnerContext, folder: Path) -> list[str]:
    here = ray.get_runtime_context().get_node_id()
    life = lives(folder)
    (folder / f"node-{life}").write_text(here)
    context.emit(Computed("node", here, 0.0))
    if life == 1:
        wait_for(folder / "never")
    return [(folder / f"node-{n}").read_text() for n in range(1, life + 1)]


def main(folder: Path) -> dict[str, Any]:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "_system_config": QUICK_DETECTION},
    )
    nodes = {node.node_id: node for node in (cluster.add_node(num_cpus=1) for _ in range(2))}
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if isinstance(event, Computed) and event.key in nodes and len(nodes) == 2:
            cluster.remove_node(nodes.pop(event.key), allow_graceful=False)

    try:
        with connect(cluster.address) as session:
            places = host(
                learn, folder, session=session, cpus=1, observer=watch, stop=StopRequest()
            )
    finally:
        cluster.shutdown()
    lost = sum(isinstance(event, WorkerLost) for event in events)
    return {"places": places, "lost": lost, "left": list(nodes)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
