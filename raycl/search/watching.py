"""The one quiet table of a sweep: trials by tasks, the best so far, what was shared, the rest.

Drawn from the records, at most a few times a second; plain lines where there is no terminal.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from typing import Protocol

from rich.live import Live
from rich.table import Table

from raycl.observe.console import Console
from raycl.observe.events import BEFORE_TASKS, Observer, Progress
from raycl.search.conductor import Conductor
from raycl.search.records import Records, Trial
from raycl.search.standings import best_sample

MOST_ROWS = 14
_PAUSE = 0.5
_LINE_SECONDS = 15.0


class SweepWatcher(Protocol):
    """Whoever shows how a sweep stands."""

    def update(self) -> None: ...
    def warn(self, words: str) -> None: ...
    def __enter__(self) -> SweepWatcher: ...
    def __exit__(self, *exc: object) -> None: ...


class Silent:
    """Shows nothing but warnings."""

    def update(self) -> None: ...

    def warn(self, words: str) -> None:
        warnings.warn(words, stacklevel=2)

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: object) -> None: ...


class Telling:
    """Shows what another watcher shows, and tells an observer how many trials are over."""

    def __init__(self, watcher: SweepWatcher, conductor: Conductor, observer: Observer) -> None:
        self._watcher, self._conductor, self._observer = watcher, conductor, observer
        self._told = -1

    def update(self) -> None:
        records, space = self._conductor.records, self._conductor.space
        over = sum(trial.over for trial in records.trials)
        if over != self._told:
            self._told = over
            total = max(len(records.trials), space.wanted_samples * len(space.seeds))
            self._observer(Progress(BEFORE_TASKS, "trials", over, total, "trial"))
        self._watcher.update()

    def warn(self, words: str) -> None:
        self._watcher.warn(words)

    def __enter__(self) -> Telling:
        self._watcher.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._watcher.__exit__(*exc)


class Lines:
    """A line when a trial is over, and now and then how all of it stands."""

    def __init__(self, conductor: Conductor, console: Console) -> None:
        self._conductor, self._console = conductor, console
        self._told = {trial.name for trial in conductor.records.trials if trial.over}
        self._last = self._began = time.monotonic()

    def update(self) -> None:
        for trial in self._conductor.records.trials:
            if trial.over and trial.name not in self._told and trial.state != "skipped":
                self._told.add(trial.name)
                self._say(trial_line(self._conductor.records, trial))
        if time.monotonic() - self._last > _LINE_SECONDS:
            self._last = time.monotonic()
            self._say(standing_line(self._conductor, self._began))

    def warn(self, words: str) -> None:
        self._say(f"warning: {words}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exc: object) -> None:
        self.update()
        self._say(standing_line(self._conductor, self._began))


class LiveTable:
    """The trials that run and those that ended last, above one line about all."""

    def __init__(self, conductor: Conductor, console: Console) -> None:
        self._conductor = conductor
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._last, self._began = 0.0, time.monotonic()

    def update(self) -> None:
        now = time.monotonic()
        if now - self._last >= _PAUSE:
            self._last = now
            self._live.update(self._table(), refresh=True)

    def warn(self, words: str) -> None:
        self._live.console.print(f"warning: {words}", highlight=False, markup=False)

    def _table(self) -> Table:
        records = self._conductor.records
        goal = records.space.goals[0].metric
        table = Table("trial", "tasks", goal, "state", box=None, title_justify="left",
                      caption=standing_line(self._conductor, self._began))  # fmt: skip
        shown = sorted(
            (trial for trial in records.trials if trial.state != "new"),
            key=lambda trial: (trial.name in self._conductor.running, trial.sample, trial.place),
        )[-MOST_ROWS:]
        for trial in shown:
            total = records.wanted_tasks(trial)
            bar = "■" * trial.done + "·" * ((total or trial.done) - trial.done)
            state = "running" if trial.name in self._conductor.running else trial.state
            table.add_row(trial.name, bar, number(trial.last.get(goal)), state)
        return table

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()
        text = standing_line(self._conductor, self._began)
        self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)


def watcher_of(conductor: Conductor) -> SweepWatcher:
    """A live table on a terminal, lines anywhere else."""
    console = Console(stderr=True)
    return LiveTable(conductor, console) if console.is_terminal else Lines(conductor, console)


def number(value: float | None) -> str:
    """For a table."""
    return "–" if value is None else f"{value:.4g}"


def trial_line(records: Records, trial: Trial) -> str:
    """One trial that is over."""
    goals = ", ".join(f"{g.metric} {number(trial.last.get(g.metric))}" for g in records.goals)
    why = f": {trial.why}" if trial.why else ""
    after = f" after {trial.done} of {trial.tasks} tasks" if trial.tasks else ""
    return f"trial {trial.name}: {trial.state}{after}, {goals}{why}"


def standing_line(conductor: Conductor, began: float) -> str:
    """All of the sweep in a line."""
    records, space = conductor.records, conductor.space
    states = Counter(trial.state for trial in records.trials)
    # A sweep that was grown before may hold more than is asked for now.
    total = max(space.wanted_samples, len(records.samples)) * len(space.seeds)
    words = [f"{sum(trial.over for trial in records.trials)} of {total} trials over"]
    words += [f"{states[s]} {s}" for s in ("paused", "pruned", "failed") if states[s]]
    best = best_sample(records)
    if best is not None:
        goal = space.goals[0].metric
        words.append(f"best {goal} {number(best.value(goal))} (sample {best.number})")
    reused = sum(sum(trial.reused.values()) for trial in records.trials)
    computed = sum(sum(trial.computed.values()) for trial in records.trials)
    words.append(f"{reused} found in the store, {computed} computed")
    left = total - sum(trial.over or trial.state == "paused" for trial in records.trials)
    over = [t.spent["wall"] for t in records.trials if t.over and "wall" in t.spent]
    if left and over:
        each = sum(over) / len(over) / max(1, conductor.concurrent)
        words.append(f"about {left * each:.0f} s left")
    words.append(f"{time.monotonic() - began:.0f} s")
    return " · ".join(words)
