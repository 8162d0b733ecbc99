"""Tells sinks of one run, so that neither can harm the other.

Guarantees: a sink whose package is missing is an error before any work; one that fails later
is warned of once and told no more, and the run goes on. How far each has been told is kept
beside what it writes, so a run that is continued, or found finished, tells no task twice
(after a kill between the two at most one, with the same numbers).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from raycl.errors import ConfigError
from raycl.observe.events import Event, TaskMeasured
from raycl.observe.sinks.sink import How, Sink, Subject
from raycl.whole_files import whole_file

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
TOLD = "told.json"
ALL = sys.maxsize
"""Tasks that a sink was told of once it knows that the run has finished."""

Values = Mapping[str, float | None]


def check_sinks(names: Sequence[str]) -> None:
    """Raises a `ConfigError` if the package of one is missing."""
    for name in names:
        package = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"logging to {name} needs a package that is not installed",
                got=package,
                do=f"pip install {package}, or leave {name} out",
            )


class Sinks:
    """The sinks of one run, each opened when there is news for it; an observer of events."""

    def __init__(self, names: Sequence[str], subject: Subject, warn: Callable[[str], None]) -> None:
        self._names, self._subject, self._warn = list(names), subject, warn
        self._told = _read(subject) if names else {}
        self._open: dict[str, Sink] = {}
        self.done = 0
        """Tasks that were told of here."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, TaskMeasured):
            self.tell(event.task + 1, event.values)

    @property
    def waiting(self) -> bool:
        """Whether one has not heard yet that the run has finished."""
        return any(self._told.get(name, 0) < ALL for name in self._names)

    def tell(self, done: int, values: Values) -> None:
        """What the run is worth after so many tasks."""
        self.done = done
        for name in list(self._names):
            if self._told.get(name, 0) < done:
                with self._guarding(name):
                    self._sink(name).tell(done, _finite(values))
                    self._note(name, done)

    def finish(self, finals: Values) -> None:
        """The run has its result."""
        for name in list(self._names):
            if self._told.get(name, 0) < ALL:
                with self._guarding(name):
                    self._sink(name).close(self.done, _finite(finals), "finished")
                    self._note(name, ALL)
        self._open.clear()

    def leave(self, how: How) -> None:
        """The run ended without a result; it may be continued."""
        for name, sink in list(self._open.items()):
            with self._guarding(name):
                sink.close(self.done, {}, how)
        self._open.clear()

    def _sink(self, name: str) -> Sink:
        if name not in self._open:
            self._open[name] = _opened(name, self._subject)
        return self._open[name]

    @contextlib.contextmanager
    def _guarding(self, name: str) -> Iterator[None]:
        """A run is worth more than who watches it."""
        try:
            yield
        except Exception as error:
            self._names.remove(name)
            self._open.pop(name, None)
            words = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            self._warn(f"this run is no longer told to {name}: {words}")

    def _note(self, name: str, done: int) -> None:
        self._told[name] = done
        path = self._subject.folder / TOLD
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_text(json.dumps(self._told), encoding="utf-8")


def _read(subject: Subject) -> dict[str, int]:
    """What was told before; what cannot be read was nothing."""
    try:
        found = json.loads((subject.folder / TOLD).read_text(encoding="utf-8"))
        return {str(name): int(done) for name, done in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _opened(name: str, subject: Subject) -> Sink:
    match name:
        case "tensorboard":
            from raycl.observe.sinks.tensorboard import TensorBoard

            return TensorBoard(subject)
        case "wandb":
            from raycl.observe.sinks.weights_and_biases import WeightsAndBiases

            return WeightsAndBiases(subject)
        case "mlflow":
            from raycl.observe.sinks.mlflow import MLflow

            return MLflow(subject)
        case _:
            raise AssertionError(f"no sink for {name}")


def _finite(values: Values) -> dict[str, float]:
    return {n: float(v) for n, v in values.items() if v is not None and math.isfinite(v)}
