"""One trial, in whatever process it is called: a run of the engine with a report per task.

Guarantees: what a trial finished is in the store, so that the next call for the same trial
goes on from there; every way in which it can end is an `Outcome`, never an exception of its
own, so that an error of whoever hosts it means that the process or the host is gone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from raycl.compute.stopping import StopRequest
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.space import TaskRungs
from raycl.errors import RayclError, StoppedError
from raycl.observe.events import Computed, Event, Reused, TaskMeasured
from raycl.search.conductor import Report
from raycl.store.store import Store

OWN = ("result", "state", "predictions", "partial", "probe")
"""Of the run itself: to find them again is no saving, it is the run going on."""
READ_AGAIN = ("features", "text")
"""What every start of a run reads: found again, it is saved once."""


@dataclass(frozen=True)
class Order:
    """All that a process needs to run a trial."""

    trial: str
    experiment: dict[str, Any]
    execution: dict[str, Any]
    tasks: int | None
    """After how many tasks it is done; null: all."""
    known: int
    """Tasks that were reported before."""
    rungs: dict[str, Any] | None = None
    """The scheduler, where this trial is compared with others at its rungs."""
    went_on: tuple[int, ...] = ()
    """Rungs that it has passed."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    state: Literal["complete", "failed", "stopped"]
    why: str | None = None
    key: str | None = None


class TrialHalted(Exception):  # noqa: N818 - a decision, not a fault
    """Raised through the engine when a report was answered with: no further."""


class _AtRung(Exception):  # noqa: N818
    """Raised through the engine at a rung: the run is put down, lease and all, while it is
    compared, so that a trial which has to wait holds nothing."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


def run_trial(
    order: Order, report: Callable[[Report], bool], stop: StopRequest | None = None
) -> Outcome:
    """Runs the trial to its end, or until a report is answered with no."""
    experiment = Experiment.model_validate(order.experiment)
    execution = Execution.model_validate(order.execution)
    execution = execution.model_copy(update={"stop_after": order.tasks})
    while True:
        watcher = _Watcher(order, report, execution.store)
        try:
            return _run_on(experiment, execution, watcher, stop)
        except _AtRung as rung:
            if not report(rung.report):
                return Outcome("stopped")
            done = rung.report.done
            order = replace(order, known=done, went_on=(*order.went_on, done))


def _run_on(
    experiment: Experiment, execution: Execution, watcher: _Watcher, stop: StopRequest | None
) -> Outcome:
    from raycl.engine.run import run_here

    order = watcher.order
    try:
        result = run_here(experiment, execution, watcher, stop)
        watcher.rest(experiment, result.values)
    except _AtRung:
        raise
    except TrialHalted:
        return Outcome("stopped")
    except StoppedError as stopped:
        if order.tasks is not None and watcher.done >= order.tasks:
            return Outcome("complete")
        return Outcome("stopped", why=stopped.what)
    except MemoryError as error:
        return Outcome("failed", why=f"out of memory: {error}".rstrip(": "))
    except RayclError as error:
        return Outcome("failed", why=str(error))
    except Exception as error:
        return Outcome("failed", why=f"{type(error).__name__}: {error}")
    return Outcome("complete", key=result.key)


class _Watcher:
    """Turns what the engine tells into reports."""

    def __init__(self, order: Order, report: Callable[[Report], bool], store: str) -> None:
        self.order, self.report, self.store = order, report, store
        self.done = order.known
        self.computed: Counter[str] = Counter()
        self.reused: Counter[str] = Counter()
        self.saved = 0.0
        self.began = time.monotonic()

    def __call__(self, event: Event) -> None:
        match event:
            case Computed(kind=kind):
                self.computed[kind] += 1
            case Reused(kind=kind, key=key) if self._saves(kind):
                self.reused[kind] += 1
                self.saved += self._seconds_of(key)
            case TaskMeasured(task=task, tasks=tasks, values=values):
                self.tell(task + 1, tasks, values)

    def _saves(self, kind: str) -> bool:
        return kind not in OWN and not (self.order.known and kind in READ_AGAIN)

    def _seconds_of(self, key: str) -> float:
        record = Store.open(self.store).record(key)
        return 0.0 if record is None else record.seconds

    def tell(self, done: int, tasks: int, values: dict[str, float | None]) -> None:
        """Reports a task that was not reported before."""
        if done <= self.done:
            return
        self.done = done
        now = time.monotonic()
        spent = {"wall": now - self.began, "saved": self.saved}
        counts = dict(self.computed), dict(self.reused)
        self.began, self.saved = now, 0.0
        self.computed.clear()
        self.reused.clear()
        report = Report(done, tasks, values, *counts, spent)
        if done in self._rungs(tasks) and done not in self.order.went_on:
            raise _AtRung(report)
        if not self.report(report):
            raise TrialHalted

    def _rungs(self, tasks: int) -> tuple[int, ...]:
        if self.order.rungs is None:
            return ()
        return TaskRungs(**self.order.rungs).at(min(tasks, self.order.tasks or tasks))

    def rest(self, experiment: Experiment, result: dict[str, Any]) -> None:
        """What a finished run has to say, if it was found and no task was run to tell it."""
        from raycl.engine.measuring import cost_values, measured_again, scalars

        tasks = len(result["tasks"])
        wanted = min(tasks, self.order.tasks or tasks)
        if self.done >= wanted:
            return
        for event in measured_again(Store.open(self.store), experiment, result):
            if event.task < wanted:
                self.tell(event.task + 1, tasks, event.values)
        if wanted == tasks:
            self.tell(tasks, tasks, {**scalars(result["metrics"]), **cost_values(result)})
