"""A sweep in a cluster of two nodes, of which one is taken away under a trial.

python -m tests.search.losing_a_trials_node FOLDER      prints one JSON object
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.cluster_utils import Cluster

from raycl import Execution
from raycl.compute.ray_session import connect
from raycl.search.sweep import SweepOptions, sweep
from tests.compute.losing_a_node import QUICK_DETECTION, processes_of
from tests.engine.processes import caught
from tests.search.real_sweeps import events, lasting


def lose_a_node(folder: Path) -> dict[str, Any]:
    """The raylet of the second node and all below it die while a trial there learns a task."""
    space, store = lasting(folder, trials=4), folder / "store"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "_system_config": QUICK_DETECTION},
    )
    node = cluster.add_node(num_cpus=1)
    lost: list[int] = []

    def lose() -> None:
        with caught(store, "state", lambda pid: pid in processes_of(node)) as found:
            inside = processes_of(node)
            (raylet,) = node.all_processes["raylet"]
            os.kill(raylet.process.pid, signal.SIGKILL)
            for pid in inside:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            lost.append(found.pid)

    hunter = threading.Thread(target=lose, daemon=True)
    try:
        with connect(cluster.address):
            hunter.start()
            execution = Execution(store=str(store), pool="ray", address=cluster.address)
            answer = sweep(space, execution, SweepOptions(test=False))
    finally:
        cluster.shutdown()
    counts = {kind: events(store, kind) for kind in ("reported", "finished", "lost")}
    return {"killed": lost, "states": answer["states"], "steps": answer["task_steps"], **counts}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(lose_a_node(Path(sys.argv[1]))) + "\n")
