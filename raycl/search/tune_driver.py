"""Drives a sweep on Ray Tune: its trials are Tune's function trials, its rules are ours.

Tune places the trials, keeps their processes warm and tells of their deaths. What runs next,
what a report means and what is remembered is the conductor's: Tune's own snapshots are never
restored, and its searcher and its scheduler here only pass on. A trial that waits at a rung
is, to Tune, over; promoted, it is a new one that goes on from the store. So no waiting trial
counts among the running ones, and none holds a lease or a process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray as untyped_ray
from ray import tune as untyped_tune
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from raycl.compute.ray_drain import LEAVING, stopping_when_drained
from raycl.compute.stopping import StopRequest
from raycl.config.space import TrialResources
from raycl.errors import ClusterError
from raycl.search.conductor import Conductor, Report
from raycl.search.orders import OrderBook
from raycl.search.records import Trial
from raycl.search.stop_flag import StopFlag, watching_flag
from raycl.search.trial_run import Order, Outcome, run_trial
from raycl.search.watching import SweepWatcher

ray: Any = untyped_ray
tune: Any = untyped_tune

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours makes it a resumable stop
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the journal is the truth
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",
    "TUNE_MAX_PENDING_TRIALS_PG": "4",
    "RAY_AIR_NEW_OUTPUT": "0",
}
GRACE_SECONDS = 10.0
"""For running trials to save, of the 15 within which a command that was asked to stop ends."""
_QUIET = ("ray.tune", "ray.train", "ray.air", "ray._private.dict")


def drive_on_tune(
    conductor: Conductor,
    orders: OrderBook,
    watcher: SweepWatcher,
    stop: StopRequest,
) -> None:
    """Runs trials until there are no more, or until it is asked to stop. What Tune
    writes is thrown away."""
    with (
        _quiet_tune(),
        tempfile.TemporaryDirectory(prefix="raycl-tune-") as folder,
        StopFlag() as flag,
    ):
        desk = _Desk(conductor, orders, watcher, stop, flag)
        tune.run(
            trainable,
            name="sweep",
            num_samples=-1,
            search_alg=_Passing(desk),
            scheduler=_Deciding(desk),
            stop=_WhenAsked(desk),
            resources_per_trial=placement(conductor.space.resources),
            storage_path=folder,
            verbose=0,
            reuse_actors=True,
            raise_on_failed_trial=False,
        )
        desk.close()


def placement(resources: TrialResources) -> Any:
    """The trial's own share, then one for each worker of its pool, placed together or not."""
    own = {"CPU": resources.cpus, "GPU": resources.gpus}
    worker = {"CPU": resources.worker_cpus, "GPU": resources.worker_gpus}
    bundles = [own, *([worker] * resources.workers)]
    return PlacementGroupFactory([{n: v for n, v in b.items() if v} for b in bundles])


def room_for(resources: TrialResources) -> int:
    """How many trials the cluster holds at a time."""
    have = ray.cluster_resources()
    need = {
        "CPU": resources.cpus + resources.workers * resources.worker_cpus,
        "GPU": resources.gpus + resources.workers * resources.worker_gpus,
    }
    room = [int(have.get(name, 0) / share) for name, share in need.items() if share]
    if min(room) < 1:
        raise ClusterError(
            "the cluster cannot hold one trial",
            got=", ".join(f"{have.get(n, 0):g} {n} of {v:g}" for n, v in need.items() if v),
            do="ask for less under `resources`, or add a node",
        )
    return min(room)


def trainable(config: dict[str, Any]) -> dict[str, Any]:
    """What a trial's process runs: the engine, with a report per task."""
    from raycl.compute.ray_worker import hide_gpus
    from raycl.compute.threads import limit_threads

    order = Order(**json.loads(config["order"]))
    if not config["gpus"]:
        hide_gpus()
    limit_threads(1)

    def report(found: Report) -> bool:
        tune.report({"report": json.dumps(asdict(found))})
        return True  # whoever is to go no further does not come back from there

    with watching_flag(config["flag"]) as stop, stopping_when_drained(stop):
        outcome = run_trial(order, report, stop)
    if outcome.state == "stopped" and stop.signal_name == LEAVING:
        # Raised, because the process of a trial that merely ends is used again, here.
        raise _Left(LEAVING)
    return {"outcome": json.dumps(asdict(outcome))}


class _Left(Exception):  # noqa: N818 - no fault
    """The trial saved, because its node will go."""


class _Desk:
    """Which of Tune's trials is which of ours."""

    def __init__(
        self,
        conductor: Conductor,
        orders: OrderBook,
        watcher: SweepWatcher,
        stop: StopRequest,
        flag: StopFlag,
    ) -> None:
        self.conductor, self.orders, self.watcher, self.stop = conductor, orders, watcher, stop
        self.flag = flag
        self.trials: dict[str, Trial] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.losses: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes snapshots of all it holds, and nobody reads them."""
        return {}

    def next(self, trial_id: str) -> dict[str, Any] | None:
        trial = self.conductor.next()
        self.watcher.update()
        if trial is None:
            return None
        self.trials[trial_id] = trial
        order = json.dumps(asdict(self.orders.order(trial)))
        gpus = self.conductor.space.resources.gpus
        return {"order": order, "gpus": gpus, "flag": self.flag.name}

    def take(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial may go on."""
        if "outcome" in result:
            self.outcomes[trial_id] = Outcome(**json.loads(result["outcome"]))
            return True
        report = Report(**json.loads(result["report"]))
        goes_on = self.conductor.report(self.trials[trial_id], report)
        if not goes_on:  # it may come back, as another trial of Tune's
            del self.trials[trial_id]
        self.watcher.update()
        return goes_on

    def settle(self, trial_id: str, error: bool) -> None:
        """A trial of Tune's is over: completed, failed, put aside, lost or stopped."""
        trial = self.trials.pop(trial_id, None)
        outcome = self.outcomes.pop(trial_id, None)
        if trial is None or trial.over or trial.state == "paused":
            return
        if error:
            self._lose(trial, self.losses.pop(trial_id, "it died"))
        elif outcome is not None and outcome.state == "complete":
            self.conductor.complete(trial, outcome.key)
        elif outcome is not None and outcome.state == "failed":
            self.conductor.fail(trial, outcome.why or "")
        else:
            self.conductor.leave(trial)
        self.watcher.update()

    def _lose(self, trial: Trial, why: str) -> None:
        if _Left.__name__ in why and LEAVING in why:
            self.conductor.leave(trial)
        elif "OutOfMemory" in why or "memory monitor" in why or "memory pressure" in why:
            self.conductor.fail(trial, f"out of memory: {why}")
        else:
            self.conductor.lose(trial, why)

    def close(self) -> None:
        """What still ran when Tune ended is open."""
        for trial in list(self.conductor.running.values()):
            self.conductor.leave(trial)


class _Passing(Searcher):
    """Asks the conductor for trials. It bounds those that run, so no limiter is around it."""

    def __init__(self, desk: _Desk) -> None:
        super().__init__()
        self._desk = desk

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if self._desk.stop.requested:
            return Searcher.FINISHED
        found = self._desk.next(trial_id)
        if found is None and self._desk.conductor.over:
            return Searcher.FINISHED
        return found

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler was told."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._desk.settle(trial_id, error)

    def save(self, checkpoint_path: str) -> None:
        """The journal is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep continues from its journal")


class _Deciding(FIFOScheduler):
    """Passes reports to the conductor, and its answers to Tune."""

    def __init__(self, desk: _Desk) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._desk = desk

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "report" not in result and "outcome" not in result:
            return str(TrialScheduler.CONTINUE)
        goes_on = self._desk.take(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._desk.losses[trial.trial_id] = _last_words(trial)


def _last_words(trial: Any) -> str:
    """Why Tune says that a trial died, in a line."""
    with contextlib.suppress(OSError, TypeError):
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        told = [line for line in lines if "Error" in line or "died" in line or "memory" in line]
        return (told or lines or ["its process died"])[-1][:300]
    return "its process died"


class _WhenAsked(Stopper):
    """When a stop was asked for: lets trials save and end by themselves, and after a grace ends
    the rest."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._end_at: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if not self._desk.stop.requested:
            return False
        if self._end_at is None:
            self._end_at = time.monotonic() + GRACE_SECONDS
            self._desk.flag.put_up()
        return time.monotonic() >= self._end_at


@contextlib.contextmanager
def _quiet_tune() -> Iterator[None]:
    """Tune's own output and handlers off, and back again."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    levels = {name: logging.getLogger(name).level for name in _QUIET}
    os.environ.update(_SETTINGS)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
