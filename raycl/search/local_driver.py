"""Drives a sweep in this process: one trial after the other, without Ray."""

from __future__ import annotations

from raycl.compute.stopping import StopRequest
from raycl.search.conductor import Conductor, Report
from raycl.search.orders import OrderBook
from raycl.search.records import Trial
from raycl.search.trial_run import run_trial
from raycl.search.watching import SweepWatcher


def drive_here(
    conductor: Conductor, orders: OrderBook, watcher: SweepWatcher, stop: StopRequest
) -> None:
    """Runs trials until there are no more, or until it is asked to stop."""
    while not stop.requested:
        trial = conductor.next()
        if trial is None:
            return
        watcher.update()
        _run_one(conductor, orders, watcher, stop, trial)
        watcher.update()


def _run_one(
    conductor: Conductor, orders: OrderBook, watcher: SweepWatcher, stop: StopRequest, trial: Trial
) -> None:
    def take(report: Report) -> bool:
        goes_on = conductor.report(trial, report)
        watcher.update()
        return goes_on

    outcome = run_trial(orders.order(trial), take, stop)
    match outcome.state:
        case "complete":
            conductor.complete(trial, outcome.key)
        case "failed":
            conductor.fail(trial, outcome.why or "")
        case "stopped":
            conductor.leave(trial)
