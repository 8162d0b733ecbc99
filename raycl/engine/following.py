"""A run told to the sinks that were asked for, whether it is computed, continued or found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raycl.config.execution import Execution
from raycl.config.spec import described
from raycl.engine.identity import RunIdentity
from raycl.errors import InterruptedByUser, StoppedError
from raycl.observe.events import Observer, Warned
from raycl.observe.sinks.sink import Subject
from raycl.observe.sinks.telling import Sinks, check_sinks
from raycl.store.store import Store

GROUP = "raycl"


def logs_of(store: Store) -> Path:
    """Where sinks write: in the store, or in the current folder if that is none."""
    return (store.location.local_root or Path()) / "logs"


@contextmanager
def followed(
    identity: RunIdentity, store: Store, execution: Execution, observer: Observer
) -> Iterator[Sinks]:
    """The sinks of a run; told how it ended, if it ended without a result."""
    check_sinks(execution.log_to)
    sinks = Sinks(
        execution.log_to, _subject(identity, store), lambda words: observer(Warned(words))
    )
    try:
        yield sinks
    except (StoppedError, InterruptedByUser, KeyboardInterrupt):
        sinks.leave("stopped")
        raise
    except BaseException:
        sinks.leave("failed")
        raise


def tell_result(
    sinks: Sinks, store: Store, identity: RunIdentity, result: Mapping[str, Any]
) -> None:
    """What a result is worth, and after each of its tasks what has not been told yet."""
    if not sinks.waiting:
        return
    from raycl.engine.measuring import cost_values, measured_again, scalars

    if sinks.done < len(result["tasks"]):
        for event in measured_again(store, identity.experiment, result):
            sinks(event)
    sinks.finish({**scalars(result["metrics"]), **cost_values(result)})


def _subject(identity: RunIdentity, store: Store) -> Subject:
    full = identity.experiment
    return Subject(
        id=f"{identity.name}-{identity.result.digest[:8]}",
        name=f"{full.method_label} on {full.stream.kind}, seed {full.seeds['order']}",
        group=GROUP,
        config=described(full),
        root=logs_of(store),
    )
