"""`run`: one experiment, from asking the store to a result. Light until work is needed.

A result that exists is returned without torch and without Ray. Otherwise the task loop
runs in this process, or, with the Ray pool, inside one supervised actor that holds the
learner's share while this process only watches.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raycl.compute.stopping import StopRequest
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.engine.following import followed, tell_result
from raycl.engine.hosting import check_execution, hosted
from raycl.engine.identity import RunIdentity
from raycl.engine.paths import absolute_store, read_for, with_absolute_paths
from raycl.observe.events import Observer, Reused, Warned, nobody
from raycl.observe.watchers import JsonLines, everyone
from raycl.store.store import Store

if TYPE_CHECKING:
    from raycl.engine.script import Job


@dataclass(frozen=True)
class RunResult:
    """A finished run: its stored result, and what this call had to compute for it."""

    values: dict[str, Any]
    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return str(self.values["key"])

    @property
    def metrics(self) -> dict[str, Any]:
        """Every metric by name, in percent; None where it is undefined."""
        return dict(self.values["metrics"])

    def as_json(self) -> dict[str, Any]:
        return {**self.values, "computed": self.computed, "reused": self.reused}


def run(
    experiment: Experiment,
    execution: Execution | None = None,
    observer: Observer = nobody,
    stop: StopRequest | None = None,
) -> RunResult:
    """The result of an experiment: found in the store, or computed and stored.

    Raises `StoppedError` when it was asked to stop; the same call then continues.
    """
    execution = execution or Execution(store=default_store())
    check_execution(execution)
    return _found_or(_learn, experiment, execution, observer, stop or StopRequest())


def run_here(
    experiment: Experiment,
    execution: Execution,
    observer: Observer = nobody,
    stop: StopRequest | None = None,
) -> RunResult:
    """The same in this very process, whatever pool its work goes to: for whoever is an actor
    already. Tells a `TaskMeasured` after each task; takes no signal."""
    return _found_or(_learn_here, experiment, execution, observer, stop or StopRequest())


_Learn = Callable[[RunIdentity, Execution, Observer, StopRequest], RunResult]


def _found_or(
    learn: _Learn,
    experiment: Experiment,
    execution: Execution,
    observer: Observer,
    stop: StopRequest,
) -> RunResult:
    identity = RunIdentity.of(experiment)
    store = Store.open(execution.store, observer)
    with followed(identity, store, execution, observer) as sinks:
        found = store.get(identity.result, only=("result.json",))
        if found is not None:
            observer(Reused("result", identity.result.key))
            result = RunResult(found["result.json"], reused={"result": 1})
        else:
            with _logged(store, identity, everyone([observer, sinks])) as tell:
                result = learn(identity, execution, tell, stop)
        tell_result(sinks, store, identity, result.values)
    return result


def default_store() -> str:
    """RAYCL_STORE, or a folder in the current one."""
    return os.environ.get("RAYCL_STORE") or Execution().store


def _learn(
    identity: RunIdentity, execution: Execution, observer: Observer, stop: StopRequest
) -> RunResult:
    from raycl.engine.script import learn_stream

    job = replace(_job(identity, execution), measures=bool(execution.log_to))
    asked, title = job.experiment, f"run {identity.name}"
    reads = read_for(asked)
    return _as_result(
        hosted(learn_stream, job, execution, observer, stop, title=title, reads=reads)
    )


def _learn_here(
    identity: RunIdentity, execution: Execution, observer: Observer, stop: StopRequest
) -> RunResult:
    from raycl.compute.local_learner import host_in_process
    from raycl.engine.script import learn_stream

    job = replace(_job(identity, execution), measures=True)
    return _as_result(host_in_process(learn_stream, job, observer=observer, stop=stop))


def _job(identity: RunIdentity, execution: Execution) -> Job:
    from raycl.engine.script import Job

    return Job(
        experiment=with_absolute_paths(identity.experiment),
        execution=execution.model_copy(update={"store": absolute_store(execution.store)}),
        code=identity.code,
        key=identity.result.key,
    )


def _as_result(out: dict[str, Any]) -> RunResult:
    return RunResult(out["result"], out["computed"], out["reused"])


@contextmanager
def _logged(store: Store, identity: RunIdentity, observer: Observer) -> Iterator[Observer]:
    """Every event also as a JSON line, under `logs/` in the store."""
    digest = identity.result.digest[:8]
    name = f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}.jsonl"
    path = f"logs/{identity.name}-{digest}/{name}"
    root = store.location.local_root
    with tempfile.TemporaryDirectory() as temporary:
        file = (root or Path(temporary)) / path
        lines = JsonLines(file)
        try:
            with lines:
                yield everyone([lines, observer])
        finally:
            if lines.fault is not None:
                observer(Warned(lines.fault))
            # An object store cannot append: it gets the whole log at the end.
            if root is None and file.exists():
                store.location.write(path, file.read_bytes())
