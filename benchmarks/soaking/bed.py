"""A Ray cluster of three nodes on loopback, in a process of its own, told by its parent what to
break.

python -m soaking.bed      reads one JSON request a line, answers each with one; ends with its input

Guarantees: nothing but this cluster is touched, because every process is reached through the
handle by which it was started or through Ray's own table of actors; a node that is taken away
is replaced; when the parent dies, however it dies, the cluster ends too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raycl.compute.ray_session import connect
from tests.engine.processes import descendants

LOOPBACK = "127.0.0.1"
DETECTION = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
"""A dead node is noticed within ten seconds, and a slow one on busy cores is not taken for dead."""
HEAD = {"num_cpus": 1, "_system_config": DETECTION, "include_dashboard": False}
NODE = {"num_cpus": 2}
OBJECTS = 120 * 2**20


class Bed:
    """The cluster and its nodes by their ids."""

    def __init__(self) -> None:
        place = {"node_ip_address": LOOPBACK, "object_store_memory": OBJECTS}
        self._cluster = Cluster(initialize_head=True, head_node_args={**HEAD, **place})
        self._node = {**NODE, **place}
        self._nodes: dict[str, Any] = {}
        for _ in range(2):
            self.add()
        self._session = connect(self._cluster.address)

    def answer(self, do: str, **asked: Any) -> Any:
        match do:
            case "address":
                return self._cluster.address
            case "nodes":
                return list(self._nodes)
            case "actors":
                return actors()
            case "inside":
                return self.inside(asked["node"])
            case "lose":
                return self.lose(asked["node"], whole=asked["whole"])
            case "drain":
                return self.drain(asked["node"], asked["seconds"])
            case "retire":
                return self.retire(asked["node"])
        raise ValueError(do)

    def add(self) -> str:
        node = self._cluster.add_node(**self._node)
        self._nodes[str(node.node_id)] = node
        return str(node.node_id)

    def inside(self, name: str) -> list[int]:
        """All that runs below the node's raylet, and itself first."""
        (raylet,) = self._nodes[name].all_processes["raylet"]
        pid = raylet.process.pid
        return [pid, *(below for below, _ in descendants(pid))]

    def lose(self, name: str, *, whole: bool) -> str:
        """SIGKILL to the raylet, or to all of the node at once; another node comes."""
        self.retire(name, whole=whole)
        return self.add()

    def retire(self, name: str, *, whole: bool = True) -> None:
        """The same, and none comes."""
        raylet, *below = self.inside(name)
        for pid in [raylet, *(below if whole else ())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def drain(self, name: str, seconds: float) -> str:
        """As a cloud announces that it takes a machine back; another node comes."""
        from ray._raylet import GcsClient
        from ray.core.generated import autoscaler_pb2

        accepted, why = GcsClient(address=self._cluster.address).drain_node(
            name,
            autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "a soak",
            int(time.time() + seconds) * 1000,
        )
        assert accepted, why
        return self.add()

    def close(self) -> None:
        self._session.close()
        self._cluster.shutdown()


def actors() -> list[dict[str, Any]]:
    """Living actors: class, name, process and node."""
    from ray._private import state

    found: dict[str, dict[str, Any]] = state.actors()
    return [
        {
            "kind": actor["ActorClassName"].rpartition(".")[2],
            "pid": actor["Pid"],
            "node": actor["Address"]["NodeID"],
        }
        for actor in found.values()
        if actor["State"] == "ALIVE" and actor["Pid"]
    ]


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what Ray prints is no answer
    bed = Bed()
    try:
        for line in sys.stdin:
            try:
                told = {"answer": bed.answer(**json.loads(line))}
            except Exception as error:  # the parent decides what that means
                told = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(told) + "\n")
            answers.flush()
    finally:
        bed.close()


if __name__ == "__main__":
    main()
