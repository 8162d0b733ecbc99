"""Nodes that are about to go: spot machines that are taken back, nodes that are scaled away.

Ray places nothing new on a draining node, and tells nobody who works there. Who asks here
leaves in time: the learner saves and goes on elsewhere, workers finish the item at hand and
are replaced, trials save and are placed again, services are built anew.

Guarantees: the head is asked at most once in `POLL_SECONDS` per process, whoever asks, and
with the price of one short call; where it cannot be asked, no node is leaving.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import ray as untyped_ray
from ray._private import state

from raycl.compute.stopping import StopRequest

POLL_SECONDS = 2.0
LEAVING = "its node is going away"


class _Watch:
    """The head's last answer, for all of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._nodes: frozenset[str] = frozenset()

    def nodes(self, fresh: bool) -> frozenset[str]:
        with self._lock:
            now = time.monotonic()
            if fresh or now - self._asked >= POLL_SECONDS:
                self._asked = now
                self._nodes = _asked_head()
            return self._nodes


_watch = _Watch()


def _asked_head() -> frozenset[str]:
    try:
        return frozenset(state.state.get_draining_nodes())
    except Exception:  # whatever a head says that restarts, or has no such question
        return frozenset()


def draining(*, fresh: bool = False) -> frozenset[str]:
    """The ids of the nodes that are draining, as far as they were asked for lately."""
    return _watch.nodes(fresh)


def own_node() -> str:
    """The id of the node on which this process is."""
    return str(untyped_ray.get_runtime_context().get_node_id())


def has_elsewhere() -> bool:
    """Whether a node is left that stays."""
    nodes = untyped_ray.nodes()  # type: ignore[no-untyped-call]
    return any(node["Alive"] and node["NodeID"] not in draining() for node in nodes)


@contextlib.contextmanager
def stopping_when_drained(stop: StopRequest) -> Iterator[None]:
    """Inside, a drain of this process's node asks for a stop, whose name is `LEAVING`."""
    over = threading.Event()
    here = own_node()

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            if here in draining():
                stop.request(LEAVING)
                return

    thread = threading.Thread(target=watch, name="raycl-drain", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
