"""Sweeps without an engine: trials whose values follow from their parameters at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raycl.config.space import Space
from raycl.config.space_files import check_space, space_of
from raycl.search.conductor import Conductor, Report
from raycl.search.ledger import Ledger, driven_ledger
from raycl.search.records import Trial, Values
from raycl.store.store import Store

TASKS = 5
LR = {"method.align.lr": {"loguniform": [1e-4, 1e-1]}}
PARTS = {
    "method.generator.kind": {"choice": ["vae", "gaussian"]},
    "method.generator.hidden": {"int": [64, 512], "when": {"method.generator.kind": "vae"}},
    **LR,
}

Worth = Callable[[dict[str, Any], int], Values]
"""What a configuration is worth after so many tasks."""


def made_space(axes: dict[str, Any] | None = None, **more: Any) -> Space:
    base = {"method": {"kind": "cgil"}, "stream": {"kind": "digits", "tasks": TASKS}}
    tree = {"base": base, "axes": LR if axes is None else axes, "samples": 8, **more}
    space = space_of(tree, more.get("name", "made"))
    check_space(space)
    return space


def by_rate(params: dict[str, Any], done: int) -> Values:
    """Best where the rate is 0.01, and the same order after every task."""
    import math

    off = abs(math.log10(params.get("method.align.lr") or 0.01) + 2)
    return {"last_pooled": 90 - 10 * off - done, "state_mib": 1 + off, "seconds": float(done)}


class Killed(BaseException):
    """The driver is gone, in the middle of a line."""


def drive(conductor: Conductor, worth: Worth = by_rate, tasks: int = TASKS) -> list[str]:
    """Runs the sweep to its end, round robin over the running trials; the steps in order."""
    told: list[str] = []
    running: list[Trial] = []
    while True:
        while (trial := conductor.next()) is not None:
            running.append(trial)
        if not running:
            assert conductor.over
            return told
        trial = running.pop(0)
        sample = conductor.records.samples[trial.sample]
        limit = min(tasks, conductor.records.limit or tasks)
        if trial.done < limit:
            done = trial.done + 1
            told.append(f"{trial.name}:{done}")
            report = Report(done, tasks, worth(sample.params, done), {"state": 1})
            if not conductor.report(trial, report):
                continue
        if trial.done >= limit:
            conductor.complete(trial)
        else:
            running.insert(0, trial)


def whole(folder: Path, space: Space, worth: Worth = by_rate, concurrent: int = 1) -> Ledger:
    """The ledger of a sweep that nobody disturbed."""
    with driven_ledger(Store.open(str(folder)), space) as ledger:
        drive(Conductor(ledger, concurrent), worth)
        return ledger


def values(ledger: Ledger) -> list[tuple[Any, ...]]:
    """All that must not depend on how often the driver died."""
    return [
        (trial.name, trial.state, trial.reports, ledger.records.samples[trial.sample].params)
        for trial in ledger.records.trials
    ]
