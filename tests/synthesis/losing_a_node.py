"""Images are painted on two nodes, one of which is taken away in the middle.

python -m tests.synthesis.losing_a_node FOLDER [IMAGES]

Prints one JSON object.
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

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.cluster_utils import Cluster

from raycl.compute.ray_pool import RayPool
from raycl.compute.ray_session import connect
from raycl.observe.events import Computed, Event, WorkerLost
from tests.compute.losing_a_node import QUICK_DETECTION, processes_of
from tests.synthesis.made_models import digests, made_images, made_prompts, record_bytes, small


def lose_a_painting_node(folder: Path, count: int) -> dict[str, Any]:
    """The raylet of one node and all below it are killed once a third is stored."""
    prompts, spec = made_prompts(count), small(chunk=4, steps=4)
    there = folder / "there"
    head = {"num_cpus": 1, "_system_config": QUICK_DETECTION}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(num_cpus=1)
    events: list[Event] = []
    before: dict[str, bytes] = {}

    def watch(event: Event) -> None:
        events.append(event)
        painted = sum(isinstance(e, Computed) for e in events)
        if painted < count // 12 or before:
            return
        before.update(record_bytes(there))
        inside = processes_of(node)
        cluster.remove_node(node, allow_graceful=False)
        for pid in inside:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    try:
        with connect(cluster.address), RayPool(watch, workers=2) as pool:
            images = made_images(there, prompts, spec, pool=pool, observer=watch)
    finally:
        cluster.shutdown()
    after = record_bytes(there)
    alone = made_images(folder / "alone", prompts, spec)
    return {
        "lost": sum(isinstance(e, WorkerLost) for e in events),
        "stored_before": len(before),
        "chunks": len(after),
        "painted_again": [key for key, record in before.items() if after[key] != record],
        "computed": images.computed,
        "same": digests(images) == digests(alone) and images.manifest == alone.manifest,
    }


if __name__ == "__main__":
    number = 500 if len(sys.argv) < 3 else int(sys.argv[2])
    sys.stdout.write(json.dumps(lose_a_painting_node(Path(sys.argv[1]), number)) + "\n")
