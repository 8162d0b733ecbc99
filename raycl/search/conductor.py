"""Which trial runs next, and what a report means for it: the rules of a sweep, without Ray.

Guarantees: at most `concurrent` trials run at a time; a trial that was interrupted goes on
before a new one begins; nothing that is over is run or told again; every decision is written
down before it is acted on. So whoever drives, and however often it died, the sweep is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raycl.config.space import Space, TaskRungs
from raycl.config.space_files import experiment_of
from raycl.config.spec import digest, identity
from raycl.errors import ConfigError
from raycl.redaction import redacted
from raycl.search import rungs
from raycl.search.ledger import Ledger
from raycl.search.records import Records, Sample, Trial, Values
from raycl.search.sampling import suggest

ATTEMPTS = 3
"""Deaths of a trial's process without a report in between, before the trial has failed."""


@dataclass(frozen=True)
class Report:
    """What a trial tells after a task."""

    done: int
    tasks: int
    values: Values
    computed: Mapping[str, int] = field(default_factory=dict)
    reused: Mapping[str, int] = field(default_factory=dict)
    spent: Mapping[str, float] = field(default_factory=dict)


class Conductor:
    """Drives one sweep through its ledger."""

    def __init__(self, ledger: Ledger, concurrent: int = 1) -> None:
        self.ledger = ledger
        self.concurrent = concurrent
        self.running: dict[str, Trial] = {}

    @property
    def space(self) -> Space:
        return self.ledger.space

    @property
    def records(self) -> Records:
        return self.ledger.records

    # What runs next

    def next(self) -> Trial | None:
        """A trial to run now. None: nothing may start before something running reports, or,
        if nothing runs, the sweep is over."""
        if len(self.running) >= self.concurrent:
            return None
        trial = self._interrupted() or self._promoted() or self._unstarted() or self._sampled()
        if trial is None and not self.running:
            trial = self._brought_home()
        if trial is None:
            return None
        if trial.state == "new":
            self.ledger.write("started", trial=trial.name)
        self.running[trial.name] = trial
        return trial

    def _interrupted(self) -> Trial | None:
        for trial in self.records.trials:
            # One may have reported at a rung and died before it was told to wait.
            if trial.state == "open" and trial.name not in self.running and self._decide(trial):
                return trial
        return None

    def _promoted(self) -> Trial | None:
        trial = rungs.to_promote(self.space, self.records.trials)
        return None if trial is None else self._let_go_on(trial)

    def _let_go_on(self, trial: Trial) -> Trial:
        self.ledger.write("promoted", trial=trial.name, rung=trial.done)
        return trial

    def _unstarted(self) -> Trial | None:
        """Another seed of a sample that still has a chance."""
        for sample in self.records.samples:
            waiting = [trial for trial in sample.trials if trial.state == "new"]
            if waiting and (self._raced(sample) or waiting[0].place == 0):
                return waiting[0]
        return None

    def _raced(self, sample: Sample) -> bool:
        """Whether the later seeds may run: if there is a race, the first has to be home."""
        first = sample.trials[0]
        return not isinstance(self.space.scheduler, TaskRungs) or first.state == "complete"

    def _sampled(self) -> Trial | None:
        """The first trial of a new sample; one whose values do not go together has failed."""
        while len(self.records.samples) < self.space.wanted_samples:
            found = suggest(self.space, self.records.samples)
            if found is None:
                return None
            params, attrs = found
            number = len(self.records.samples)
            groups, fault = self._groups(params)
            self.ledger.write("sampled", sample=number, params=params, attrs=attrs, groups=groups)
            trials = self.records.samples[number].trials
            if fault is None:
                return trials[0]
            self.fail(trials[0], fault)
        return None

    def _groups(self, params: Mapping[str, Any]) -> tuple[list[str], str | None]:
        """Per seed, what trials must share to be compared; and why none can run, if so."""
        found = []
        for seed in self.space.seeds:
            try:
                experiment = experiment_of(self.space, params, seed).resolved()
            except ConfigError as error:  # two values that do not go together
                return [""] * len(self.space.seeds), str(error)
            seeds = {"order": experiment.seeds["order"], "shot": experiment.seeds["shot"]}
            parts = [identity(experiment.stream), identity(experiment.validation), seeds]
            found.append(digest(parts)[:12])
        return found, None

    def _brought_home(self) -> Trial | None:
        """When nothing else is left: the best of those that wait, if none has come through;
        all others are over."""
        trial = rungs.best_waiting(self.space, self.records.trials)
        if trial is not None:
            return self._let_go_on(trial)
        for sample in self.records.samples:
            for waiting in sample.trials:
                if waiting.state == "paused":
                    self.ledger.write("finished", trial=waiting.name, state="pruned")
                elif waiting.state == "new":
                    self.ledger.write("finished", trial=waiting.name, state="skipped")
        if not self.records.ended:
            self.ledger.write("ended")
        return None

    @property
    def over(self) -> bool:
        """Whether everything was said; to be asked after `next` gave None."""
        return self.records.ended and not self.running

    # What it told

    def report(self, trial: Trial, report: Report) -> bool:
        """Takes a report; whether the trial is to go on."""
        if report.done not in trial.reports:
            self.ledger.write(
                "reported",
                trial=trial.name,
                done=report.done,
                tasks=report.tasks,
                values=_writable(report.values),
                computed=dict(report.computed),
                reused=dict(report.reused),
                spent=dict(report.spent),
            )
        for goal in self.space.goals:
            value = report.values.get(goal.metric)
            if value is not None and not math.isfinite(value):
                self.fail(trial, f"{goal.metric} is {value} after task {report.done}")
                return False
        goes_on = self._decide(trial)
        if not goes_on:
            self.running.pop(trial.name, None)
        return goes_on

    def _decide(self, trial: Trial) -> bool:
        """Whether a trial may go beyond the task it has reported; written down at a rung."""
        here = trial.done
        if here in trial.went_on:
            return True
        if here not in rungs.compared_at(self.space, trial, self.records.limit):
            return True
        if rungs.goes_on(self.space, self.records.trials, trial, here):
            self.ledger.write("promoted", trial=trial.name, rung=here)
            return True
        self.ledger.write("paused", trial=trial.name)
        return False

    def complete(self, trial: Trial, key: str | None = None) -> None:
        """The trial learnt all the tasks that it should."""
        self.running.pop(trial.name, None)
        missing = [g.metric for g in self.space.goals if trial.last.get(g.metric) is None]
        if missing:
            self.fail(trial, f"{', '.join(missing)} is undefined for this method and stream")
        else:
            self.ledger.write("finished", trial=trial.name, state="complete", key=key)

    def fail(self, trial: Trial, why: str) -> None:
        """The trial cannot be brought to an end; its sample's other trials do not begin."""
        self.running.pop(trial.name, None)
        self.ledger.write("finished", trial=trial.name, state="failed", why=redacted(why))
        for other in self.records.samples[trial.sample].trials:
            if other.state == "new":
                self.ledger.write("finished", trial=other.name, state="skipped")

    def lose(self, trial: Trial, why: str) -> None:
        """Its process died: it goes on from its last task, unless it dies again and again."""
        self.running.pop(trial.name, None)
        self.ledger.write("lost", trial=trial.name, why=redacted(why))
        if trial.losses >= ATTEMPTS:
            self.fail(trial, f"its process died {trial.losses} times in a row; last: {why}")

    def leave(self, trial: Trial) -> None:
        """It was stopped from outside, and is open."""
        self.running.pop(trial.name, None)


def _writable(values: Values) -> dict[str, float | str | None]:
    """JSON has no NaN: what is no number is written as a word."""
    return {n: v if v is None or math.isfinite(v) else str(v) for n, v in values.items()}
