"""Hosting a learner in this process: the same call as `ray_learner.host`, without Ray.

Nothing is supervised: an exception of the target is the caller's, and a death is ours.
"""

from __future__ import annotations

from typing import Any

from raycl.compute.learner import Stoppable, Target
from raycl.compute.pool import DEFAULT_ATTEMPTS
from raycl.observe.events import Event, Observer


class _LocalContext:
    def __init__(self, observer: Observer, stop: Stoppable) -> None:
        self._observer = observer
        self._stop = stop

    def emit(self, event: Event) -> None:
        self._observer(event)

    def stopping(self) -> bool:
        return self._stop.requested


def host_in_process(
    target: Target,
    payload: Any,
    *,
    observer: Observer,
    stop: Stoppable,
    session: object = None,
    cpus: float = 1,
    gpus: float = 0,
    attempts: int = DEFAULT_ATTEMPTS,
) -> Any:
    """The target's value. Session, shares and attempts are accepted and play no part."""
    return target(_LocalContext(observer, stop), payload)
