"""`sweep`: a space, searched. Begun, continued and extended by the same call.

Light until trials must run: Ray and Optuna are imported when they are needed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from raycl.compute.stopping import StopRequest, catching_signals
from raycl.config.execution import Execution
from raycl.config.space import Space
from raycl.config.space_files import experiment_of
from raycl.engine.hosting import CONTINUE
from raycl.engine.run import default_store
from raycl.engine.run import run as run_experiment
from raycl.errors import ConfigError, InterruptedByUser, StoppedError, WorkError
from raycl.observe.events import Observer, nobody
from raycl.observe.sinks.telling import check_sinks
from raycl.search.conductor import Conductor
from raycl.search.following import FollowedTrials
from raycl.search.ledger import Ledger, driven_ledger
from raycl.search.local_driver import drive_here
from raycl.search.orders import OrderBook
from raycl.search.shipped_spaces import find_space
from raycl.search.standings import best_sample, failed_share, summary
from raycl.search.watching import Silent, SweepWatcher, Telling, watcher_of
from raycl.store.pulses import beating
from raycl.store.store import Store


@dataclass(frozen=True)
class SweepOptions:
    """What a call says beside the space and the place."""

    new: bool = False
    """Begin another sweep of that name, instead of continuing the newest."""
    extend_tasks: int | None = None
    """Let finished trials go on to so many tasks."""
    test: bool = True
    """Whether the best sample is measured on the test data at the end."""
    quiet: bool = True
    """Whether nothing is shown while it runs."""


def sweep(
    space: Space | str,
    execution: Execution | None = None,
    options: SweepOptions | None = None,
    observer: Observer = nobody,
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Searches a space (a shipped name, a file, or a `Space`) and tells what came out.

    Raises `StoppedError` when it was asked to stop, and `WorkError` when more trials failed
    than the space puts up with; the same call then continues.
    """
    options = options or SweepOptions()
    execution = execution or Execution(store=default_store(), pool="ray")
    found = find_space(space) if isinstance(space, str) else space
    if found.name is None:
        raise ConfigError("a sweep needs a name", do="set `name` in its space")
    began, stop = time.monotonic(), stop or StopRequest()
    store = Store.open(execution.store, observer, stopping=lambda: stop.requested)
    with (
        catching_signals(stop),
        driven_ledger(store, found, new=options.new) as ledger,
        beating(store.location, f"sweep {ledger.entry.id}", observer) as tell,
    ):
        _extend(ledger, found, options)
        _drive(ledger, execution, options, stop, tell)
        _raise_if_stopped(stop)
        _test_best(ledger, execution, options, observer, stop)
        ledger.fold()
        answer = summary(ledger.records, ledger.entry.id, time.monotonic() - began)
    _raise_if_failed(ledger, found)
    return answer


def _extend(ledger: Ledger, space: Space, options: SweepOptions) -> None:
    """More tasks for trials that stopped at a limit. Fewer are no wish one can have."""
    records, wanted = ledger.records, options.extend_tasks or space.tasks
    if options.extend_tasks is not None and records.limit is None:
        raise ConfigError(
            "the trials of this sweep learn every task already",
            got=f"--extend-tasks {options.extend_tasks}",
            do="it is for spaces that set `tasks`",
        )
    asked = options.extend_tasks is not None or ledger.entry.space.tasks != space.tasks
    if asked and records.limit != wanted:
        if wanted is not None and records.limit is not None and wanted < records.limit:
            raise ConfigError(
                "what was learnt cannot be taken back", got=f"{wanted} tasks after {records.limit}",
                do="begin another sweep with --new",
            )  # fmt: skip
        ledger.write("extended", tasks=wanted)


def _drive(
    ledger: Ledger,
    execution: Execution,
    options: SweepOptions,
    stop: StopRequest,
    observer: Observer,
) -> None:
    space = ledger.space
    conductor = Conductor(ledger, space.concurrent or 1)
    if not _has_work(conductor):
        return
    orders = OrderBook(conductor, execution)
    shown: SweepWatcher = Silent() if options.quiet else watcher_of(conductor)
    watcher: SweepWatcher = Telling(shown, conductor, observer)
    if execution.log_to:
        check_sinks(execution.log_to)
        watcher = FollowedTrials(execution.log_to, ledger, orders, watcher)
    if execution.pool == "local":
        if (space.concurrent or 1) > 1:
            raise ConfigError(
                "the local pool runs one trial at a time",
                got=f"concurrent={space.concurrent}",
                do="leave --pool local out",
            )
        with watcher:
            drive_here(conductor, orders, watcher, stop)
        return
    from raycl.search.tune_driver import drive_on_tune, room_for

    with _ray(space, execution):
        room = room_for(space.resources)
        conductor.concurrent = min(room, space.concurrent or room)
        with watcher:
            drive_on_tune(conductor, orders, watcher, stop)


def _has_work(conductor: Conductor) -> bool:
    """Whether a trial is left to run; a sweep that ended starts nothing, not even Ray."""
    records = conductor.records
    return not (records.ended and len(records.samples) >= conductor.space.wanted_samples)


def _ray(space: Space, execution: Execution) -> AbstractContextManager[Any]:
    from raycl.compute.ray_session import connect

    share = space.resources
    each = share.cpus + share.workers * share.worker_cpus
    cpus = each * space.concurrent if space.concurrent else None
    if execution.workers > 1:
        cpus = float(execution.workers)
    return connect(execution.address, num_cpus=cpus)


def _raise_if_stopped(stop: StopRequest) -> None:
    if stop.signal_name == "SIGINT":
        raise InterruptedByUser("the sweep was interrupted", do=CONTINUE)
    if stop.requested:
        raise StoppedError("the sweep was stopped", do=CONTINUE)


def _test_best(
    ledger: Ledger,
    execution: Execution,
    options: SweepOptions,
    observer: Observer,
    stop: StopRequest,
) -> None:
    """What the best sample is worth on the test data: measured once, chosen by nothing."""
    space, records = ledger.space, ledger.records
    best = best_sample(records)
    if space.on_test or best is None or not options.test:
        return
    if records.tested_sample == best.number and len(records.tested) == len(space.seeds):
        return
    for seed in space.seeds:
        if records.tested_sample == best.number and seed in records.tested:
            continue
        experiment = experiment_of(space, best.params, seed, on_test=True)
        result = run_experiment(experiment, _for_one(space, execution), observer, stop)
        told = {"key": result.key, "metrics": _scalars(result.metrics)}
        ledger.write("tested", sample=best.number, seed=seed, result=told)


def _scalars(metrics: dict[str, Any]) -> dict[str, float | None]:
    return {n: v for n, v in metrics.items() if v is None or isinstance(v, int | float)}


def _for_one(space: Space, execution: Execution) -> Execution:
    """Where one run works that is no trial: on a cluster in an actor like a trial's."""
    share = space.resources
    if execution.pool == "local" or execution.address is None:
        return execution.model_copy(update={"pool": "local", "workers": 1, "address": None})
    learner = execution.learner.model_copy(update={"cpus": share.cpus, "gpus": share.gpus})
    workers = max(1, share.workers)
    return execution.model_copy(update={"learner": learner, "workers": workers})


def _raise_if_failed(ledger: Ledger, space: Space) -> None:
    share = failed_share(ledger.records)
    failed = [trial for trial in ledger.records.trials if trial.state == "failed"]
    if failed and (share > space.failures or best_sample(ledger.records) is None):
        first: Sequence[str] = [f"{trial.name}: {trial.why}" for trial in failed[:3]]
        raise WorkError(
            f"{len(failed)} trials failed, {100 * share:.0f} % of those that ended",
            got="; ".join(first),
            do=f"`raycl report {ledger.entry.id}` shows all; `failures` sets how many may",
        )
