"""Where the work of a command is done: in this process, or in one supervised actor.

Light: Ray is imported only when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from raycl.compute.learner import Target
from raycl.compute.local_learner import host_in_process
from raycl.compute.stopping import StopRequest, catching_signals
from raycl.config.execution import Execution
from raycl.engine.nodes import check_from_others
from raycl.engine.paths import absolute_store
from raycl.errors import ConfigError, InterruptedByUser, StoppedError
from raycl.observe.events import Observer
from raycl.store.location import open_location
from raycl.store.pulses import beating

CONTINUE = "run the same command again to continue"


def hosted(
    target: Target,
    job: Any,
    execution: Execution,
    observer: Observer,
    stop: StopRequest,
    *,
    title: str,
    reads: Sequence[str] = (),
    store: str | None = None,
) -> Any:
    """The target's value; a `StoppedError` once it was asked to stop and has saved.

    What it is doing meanwhile is told under `title` in the store, by default the execution's.
    `reads`: absolute paths that every node of a cluster must have.
    """
    place = open_location(absolute_store(store or execution.store))
    with catching_signals(stop), beating(place, title, observer) as tell:
        try:
            return _hosted(target, job, execution, tell, stop, reads)
        except StoppedError as error:
            if stop.signal_name == "SIGINT":
                raise InterruptedByUser(f"interrupted: {error.what}", do=CONTINUE) from None
            raise StoppedError(error.what, do=CONTINUE) from None


def _hosted(
    target: Target,
    job: Any,
    execution: Execution,
    observer: Observer,
    stop: StopRequest,
    reads: Sequence[str],
) -> Any:
    if execution.pool == "local":
        return host_in_process(target, job, observer=observer, stop=stop)
    from raycl.compute.ray_learner import host
    from raycl.compute.ray_session import connect

    learner = execution.learner
    cpus = math.ceil(execution.workers * execution.worker.cpus + learner.cpus)
    with connect(execution.address, num_cpus=cpus) as session:
        if execution.address:
            # A folder that only some nodes see would cost hours before it fails.
            check_from_others(absolute_store(execution.store), reads)
        return host(
            target,
            job,
            session=session,
            cpus=learner.cpus,
            gpus=learner.gpus,
            observer=observer,
            stop=stop,
        )


def check_execution(execution: Execution) -> None:
    """Refuse what cannot be meant together."""
    if execution.pool == "local" and (execution.address or execution.workers > 1):
        raise ConfigError(
            "the local pool works in this process only",
            got=f"address={execution.address}, workers={execution.workers}",
            do="add --pool ray",
        )
