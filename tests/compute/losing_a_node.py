"""Work whose node is taken away, in a cluster of several nodes.

python -m tests.compute.losing_a_node FOLDER         a learner moves to another node
python -m tests.compute.losing_a_node FOLDER cgil    a run of CGIL loses a node that fits

Each prints one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
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
from raycl.observe.events import Computed, Event, RunStarted, WorkerLost
from tests.compute.workers import lives, wait_for
from tests.engine.processes import caught, descendants

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


def lose_the_learner(folder: Path) -> dict[str, Any]:
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


def lose_a_fitting_node(folder: Path) -> dict[str, Any]:
    """The head has room for the learner and one worker, the other node for one more."""
    from tests.engine.worlds import LASTING, Killer, Loss, lasting_world  # which takes torch

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "_system_config": QUICK_DETECTION},
    )
    world = lasting_world(folder)

    def lose(event: Event, told: int) -> Loss | None:
        if not isinstance(event, RunStarted):
            return None
        # Stopped at its first class, the worker of the head leaves the others to the node.
        with caught(world.store, "generator"):
            node = cluster.add_node(num_cpus=1)
            with caught(world.store, "generator", lambda pid: pid in processes_of(node)):
                loss = Loss.now(world.store, told)
                inside = processes_of(node)
                cluster.remove_node(node, allow_graceful=False)
                for pid in inside:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        return loss

    killer = Killer([lose])
    try:
        with connect(cluster.address):
            result = world.run("cgil", *LASTING, pool="ray", workers=2, observer=killer)
    finally:
        cluster.shutdown()
    (loss,) = killer.losses
    loss.check(world.store, killer.fitted)
    counts = {"computed": result.computed, "reused": result.reused}
    return {"lost": killer.lost, "making": loss.making, **counts}


def processes_of(node: Any) -> list[int]:
    (raylet,) = node.all_processes["raylet"]
    return [pid for pid, _ in descendants(raylet.process.pid)]


if __name__ == "__main__":
    lose = {"learner": lose_the_learner, "cgil": lose_a_fitting_node}
    name = "learner" if len(sys.argv) < 3 else sys.argv[2]
    sys.stdout.write(json.dumps(lose[name](Path(sys.argv[1]))) + "\n")
