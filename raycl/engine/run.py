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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raycl.compute.stopping import StopRequest
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.engine.hosting import absolute_store, check_execution, hosted, with_absolute_paths
from raycl.engine.identity import RunIdentity
from raycl.observe.events import Observer, Reused, Warned, nobody
from raycl.observe.watchers import JsonLines, everyone
from raycl.store.store import Store


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
    identity = RunIdentity.of(experiment)
    store = Store.open(execution.store, observer)
    found = store.get(identity.result, only=("result.json",))
    if found is not None:
        observer(Reused("result", identity.result.key))
        return RunResult(found["result.json"], reused={"result": 1})
    with _logged(store, identity, observer) as tell:
        return _learn(identity, execution, tell, stop or StopRequest())


def default_store() -> str:
    """RAYCL_STORE, or a folder in the current one."""
    return os.environ.get("RAYCL_STORE") or Execution().store


def _learn(
    identity: RunIdentity, execution: Execution, observer: Observer, stop: StopRequest
) -> RunResult:
    from raycl.engine.script import Job, learn_stream

    job = Job(
        experiment=with_absolute_paths(identity.experiment),
        execution=execution.model_copy(update={"store": absolute_store(execution.store)}),
        code=identity.code,
        key=identity.result.key,
    )
    out = hosted(learn_stream, job, execution, observer, stop)
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
