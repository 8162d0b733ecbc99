"""Work on a cluster of three nodes, of which one dies, one comes and one is drained.

python -m tests.compute.living_cluster FOLDER fit      `raycl fit`, whose workers hold GPUs
python -m tests.compute.living_cluster FOLDER run      a run of CGIL, whose learner is drained
python -m tests.compute.living_cluster FOLDER service  a named service that is drained
python -m tests.compute.living_cluster FOLDER sweep    a sweep, whose trial is drained

Each prints one JSON object. The GPUs are numbers: nothing computes on them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.cluster_utils import Cluster

from raycl.compute.pool import WorkerSpec
from raycl.compute.ray_nodes import on_each_node
from raycl.compute.ray_pool import RayPool
from raycl.compute.ray_session import connect
from raycl.config.execution import Execution, Learner, Worker
from raycl.config.generators import VAEGenerator
from raycl.config.space_files import space_of
from raycl.config.streams import EmbeddingsStream
from raycl.engine.fitting import fit
from raycl.observe.events import Computed, Event, Progress, TaskDone, Warned, WorkerLost
from raycl.search.ledger import open_ledger
from raycl.search.sweep import SweepOptions, sweep
from raycl.store.store import Store
from tests.compute.losing_a_node import QUICK_DETECTION, processes_of
from tests.engine.processes import makers
from tests.engine.worlds import LASTING, World, lasting_world
from tests.fitting.made_fits import record_bytes, tensor_digests

CLASSES = 24
SLOW = VAEGenerator(latent=16, hidden=64, epochs=300, batch=16)
"""A class of some tenths of a second."""
NODE = {"num_cpus": 2, "num_gpus": 1}
LONG = (*LASTING, "method.align.epochs=600")
"""A run of some seconds a task, so that a drain is seen while it learns."""
FAR_SECONDS = 100


def three_nodes() -> tuple[Any, list[Any]]:
    """A head that holds the learner, and two nodes with a GPU each."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "_system_config": QUICK_DETECTION},
    )
    return cluster, [cluster.add_node(**NODE) for _ in range(2)]


def drain(cluster: Any, node: str) -> None:
    """As a cloud announces that it takes a machine back."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    accepted, why = GcsClient(address=cluster.address).drain_node(
        node,
        autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "a test",
        int(time.time() + FAR_SECONDS) * 1000,
    )
    assert accepted, why


def destroy(cluster: Any, node: Any) -> None:
    """SIGKILL to the raylet and to all that it started."""
    inside = processes_of(node)
    cluster.remove_node(node, allow_graceful=False)
    for pid in inside:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Plans:
    """An observer that carries out each plan once so many events of a kind were heard."""

    def __init__(self, kind: type[Event], *plans: tuple[int, Callable[[], None]]) -> None:
        self.kind, self.plans = kind, list(plans)
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        heard = sum(isinstance(e, self.kind) for e in self.events)
        if self.plans and heard >= self.plans[0][0]:
            self.plans.pop(0)[1]()

    def told(self) -> dict[str, Any]:
        words = [e.message for e in self.events if isinstance(e, Warned)]
        lost = [e.worker for e in self.events if isinstance(e, WorkerLost)]
        return {"lost": lost, "moved": [w for w in words if "moves" in w], "left": len(self.plans)}


def a_fit(folder: Path) -> dict[str, Any]:
    world = World(folder, classes=CLASSES, train=60, noise=1.0)
    stream = EmbeddingsStream(paths=(str(world.data),))
    fit(stream, SLOW, Execution(store=str(folder / "here")))
    cluster, (first, second) = three_nodes()
    kept: dict[str, bytes] = {}

    def kill_one_and_add_another() -> None:
        kept.update(record_bytes(world.store))
        destroy(cluster, first)
        cluster.add_node(**NODE)

    def drain_one() -> None:
        kept.update(record_bytes(world.store))
        drain(cluster, second.node_id)

    plans = Plans(Computed, (3, kill_one_and_add_another), (9, drain_one))
    share = Worker(cpus=1, gpus=1)
    place = Execution(store=str(world.store), pool="ray", workers=2, worker=share, device="cpu")
    try:
        with connect(cluster.address):
            result = fit(stream, SLOW, place, plans)
    finally:
        cluster.shutdown()
    after = record_bytes(world.store)
    return {
        **plans.told(),
        "classes": result.classes,
        "computed": result.computed["generator"],
        "refitted": sum(after[key] != record for key, record in kept.items()),
        "same": tensor_digests(folder / "here") == tensor_digests(world.store),
    }


def a_run(folder: Path) -> dict[str, Any]:
    from tests.engine.worlds import numbers, predictions_digests

    world = lasting_world(folder)
    here = world.run("cgil", *LONG, store=str(folder / "here"))
    cluster, _ = three_nodes()

    def drain_the_learner() -> None:
        (actor,) = [a for a in actors() if a["ActorClassName"] == "LearnerActor"]
        drain(cluster, actor["Address"]["NodeID"])

    plans = Plans(Progress, (20, drain_the_learner))
    share = Learner(cpus=2)  # which the head has not got
    try:
        with connect(cluster.address):
            there = world.run("cgil", *LONG, pool="ray", workers=1, learner=share, observer=plans)
    finally:
        cluster.shutdown()
    return {
        **plans.told(),
        "tasks": sum(isinstance(e, TaskDone) for e in plans.events),
        "same": numbers(here) == numbers(there)
        and predictions_digests(folder / "here") == predictions_digests(world.store),
    }


class Somewhere:
    """A service that knows its node."""

    def where(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def a_service(folder: Path) -> dict[str, Any]:
    cluster, nodes = three_nodes()
    try:
        with connect(cluster.address), RayPool(workers=1) as pool:
            for number in range(20):
                service = pool.service(f"somewhere-{number}", WorkerSpec(Somewhere))
                before = service.call("where")
                if before in [node.node_id for node in nodes]:
                    break
            drain(cluster, before)
            deadline = time.monotonic() + FAR_SECONDS / 2
            while (after := service.call("where")) == before and time.monotonic() < deadline:
                time.sleep(0.2)
            answers = on_each_node(len, "four")
    finally:
        cluster.shutdown()
    return {"moved": after != before, "asked": len(answers)}


def a_sweep(folder: Path) -> dict[str, Any]:
    world = lasting_world(folder)
    stream = {**world.asked("joint")["stream"], "tasks": 2}
    space = space_of(
        {
            "samples": 2,
            "sampler": {"kind": "grid"},
            "concurrent": 1,
            "base": {
                "method": {"kind": "joint", "align": {"epochs": 800, "batch": 8}},
                "stream": stream,
            },
            "axes": {"method.align.lr": {"choice": [1e-3, 3e-3]}},
        },
        "drained",
    )
    alone = SweepOptions(test=False)
    here = sweep(space, Execution(store=str(folder / "here")), alone)
    cluster, _ = three_nodes()
    drained: list[str] = []

    def drain_the_trial() -> None:
        while len(drained) < 2:
            found = [a for a in actors() if "ImplicitFunc" in a["ActorClassName"]]
            nodes = [a["Address"]["NodeID"] for a in found]
            if nodes and not drained and makers(world.store, "state"):
                drained.append(nodes[0])
                drain(cluster, drained[0])
            drained.extend([node for node in nodes if drained and node not in drained][:1])
            time.sleep(0.1)

    try:
        with connect(cluster.address):
            threading.Thread(target=drain_the_trial, daemon=True).start()
            there = sweep(space, Execution(store=str(world.store), pool="ray"), alone)
    finally:
        cluster.shutdown()
    records = open_ledger(Store.open(str(world.store)), "drained").records
    return {
        "nodes": len(drained),
        "states": there["states"],
        "lost": sum(trial.losses for trial in records.trials),
        "same": worth(here) == worth(there),
    }


def worth(answer: dict[str, Any]) -> Any:
    """What a sweep found best, without how long that took."""
    return {name: answer["best"][name] for name in ("sample", "params")}, answer["best"]["values"]


def actors() -> list[dict[str, Any]]:
    from ray._private import state

    found: dict[str, dict[str, Any]] = state.actors()
    return [actor for actor in found.values() if actor["State"] == "ALIVE"]


if __name__ == "__main__":
    scenario = {"fit": a_fit, "run": a_run, "service": a_service, "sweep": a_sweep}[sys.argv[2]]
    told = scenario(Path(sys.argv[1]))
    ray.shutdown()
    sys.stdout.write(json.dumps(told) + "\n")
