"""What is known of a sweep: samples, their trials, what each reported; rebuilt from events.

Guarantees: the state depends on the events alone, in their order; an event that comes twice
counts once. Nothing here does input or output, or knows of Ray and Optuna.

A *sample* is a configuration. It has one *trial* per seed: a run of the engine, which
reports after every task. A trial that is neither over nor paused is open: whoever drives the
sweep runs it, from whatever task the store has of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from raycl.config.space import Objective, Space

Values = dict[str, float | None]
State = Literal["new", "open", "paused", "complete", "pruned", "failed", "skipped"]
OVER = ("complete", "pruned", "failed", "skipped")
Event = Mapping[str, Any]


@dataclass
class Trial:
    """One configuration with one seed."""

    sample: int
    place: int
    """Of its seed among the seeds."""
    seed: int
    group: str
    """Trials of one group saw the same classes in the same order, so they can be compared."""
    state: State = "new"
    reports: dict[int, Values] = field(default_factory=dict)
    """What was worth what after so many tasks."""
    tasks: int | None = None
    """Of its stream."""
    went_on: set[int] = field(default_factory=set)
    """Rungs beyond which it was let."""
    why: str | None = None
    """Why it failed."""
    key: str | None = None
    """Of its result, where the whole stream was learnt."""
    spent: dict[str, float] = field(default_factory=dict)
    """Wall seconds here, and those of what it found in the store instead of making it."""
    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)
    losses: int = 0
    """Processes that died under it since it last reported."""
    heard_of: tuple[float, float] | None = None
    """The times of its first event and of its last, as whoever drove the sweep saw them."""

    @property
    def name(self) -> str:
        return f"{self.sample}-{self.seed}"

    @property
    def done(self) -> int:
        """Tasks that it has reported."""
        return max(self.reports, default=0)

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def last(self) -> Values:
        """The newest report."""
        return self.reports[self.done] if self.reports else {}


@dataclass
class Sample:
    """One configuration and its trials, one per seed."""

    number: int
    params: dict[str, Any]
    trials: list[Trial]
    attrs: dict[str, Any] = field(default_factory=dict)
    """What the sampler wants to find again."""

    @property
    def state(self) -> Literal["running", "complete", "pruned", "failed"]:
        """A sample that waits to go on counts as pruned, until it does."""
        states = {trial.state for trial in self.trials}
        if "failed" in states:
            return "failed"
        if states == {"complete"}:
            return "complete"
        if "open" in states or not states & {"paused", "pruned", "skipped"}:
            return "running"
        return "pruned"

    def value(self, metric: str) -> float | None:
        """The mean over its trials after their last task; null if one has none."""
        return mean(trial.last.get(metric) for trial in self.trials)

    def values_after(self, metric: str) -> dict[int, float]:
        """The mean after each number of tasks that every trial that began has reported."""
        began = [trial for trial in self.trials if trial.reports]
        found = {}
        for done in began[0].reports if began else ():
            value = mean(trial.reports.get(done, {}).get(metric) for trial in began)
            if value is not None:
                found[done] = value
        return found


def mean(values: Iterable[float | None]) -> float | None:
    """The mean, or null where a value is missing or is no number."""
    numbers = list(values)
    if not numbers or any(v is None or not math.isfinite(v) for v in numbers):
        return None
    return math.fsum(v for v in numbers if v is not None) / len(numbers)


class Records:
    """All that the events of one sweep say."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.samples: list[Sample] = []
        self.limit = space.tasks
        """Tasks that a trial learns; null: all."""
        self.tested: dict[int, dict[str, Any]] = {}
        """By seed, what the best sample is worth on the test."""
        self.tested_sample: int | None = None
        self.ended = False

    @property
    def trials(self) -> list[Trial]:
        return [trial for sample in self.samples for trial in sample.trials]

    @cached_property
    def goals(self) -> tuple[Objective, ...]:
        return self.space.goals

    def trial(self, name: str) -> Trial:
        sample, _, seed = name.partition("-")
        return next(t for t in self.samples[int(sample)].trials if t.seed == int(seed))

    def take(self, event: Event) -> None:
        """Lets an event change the state."""
        if "trial" in event and "at" in event:
            trial, at = self.trial(event["trial"]), float(event["at"])
            first, last = trial.heard_of or (at, at)
            trial.heard_of = min(first, at), max(last, at)
        match event["event"]:
            case "sampled":
                self._sampled(event)
            case "started":
                self._started(self.trial(event["trial"]))
            case "reported":
                self._reported(self.trial(event["trial"]), event)
            case "paused":
                self._set(self.trial(event["trial"]), "paused")
            case "promoted":
                self._promoted(self.trial(event["trial"]), event)
            case "lost":
                self.trial(event["trial"]).losses += 1
            case "finished":
                self._finished(self.trial(event["trial"]), event)
            case "extended":
                self._extended(event["tasks"])
            case "ended":
                self.ended = True
            case "tested":
                self.tested_sample = event["sample"]
                self.tested[event["seed"]] = dict(event["result"])
            case _:
                pass  # of a newer version, or of the sweep's beginning

    def _sampled(self, event: Event) -> None:
        if event["sample"] < len(self.samples):
            return
        assert event["sample"] == len(self.samples), "a sample is missing from the journal"
        trials = [
            Trial(event["sample"], place, seed, group)
            for place, (seed, group) in enumerate(
                zip(self.space.seeds, event["groups"], strict=True)
            )
        ]
        attrs = dict(event.get("attrs", {}))
        self.samples.append(Sample(event["sample"], dict(event["params"]), trials, attrs))
        self.ended = False

    def _started(self, trial: Trial) -> None:
        if trial.state == "new":
            trial.state = "open"
        self.ended = False

    def _reported(self, trial: Trial, event: Event) -> None:
        trial.tasks = event["tasks"]
        trial.losses = 0
        if event["done"] in trial.reports:
            return
        # What is no number was written as a word.
        values = event["values"].items()
        trial.reports[event["done"]] = {n: v if v is None else float(v) for n, v in values}
        for name, count in event.get("computed", {}).items():
            trial.computed[name] = trial.computed.get(name, 0) + count
        for name, count in event.get("reused", {}).items():
            trial.reused[name] = trial.reused.get(name, 0) + count
        for name, seconds in event.get("spent", {}).items():
            trial.spent[name] = trial.spent.get(name, 0.0) + seconds

    def _promoted(self, trial: Trial, event: Event) -> None:
        trial.went_on.add(event["rung"])
        self._set(trial, "open")

    def _set(self, trial: Trial, state: State) -> None:
        if not trial.over:
            trial.state = state

    def _finished(self, trial: Trial, event: Event) -> None:
        if trial.over:
            return
        trial.state = event["state"]
        trial.why = event.get("why")
        trial.key = event.get("key")

    def _extended(self, tasks: int | None) -> None:
        """What was complete after fewer tasks goes on; what was not, stays as it is."""
        if self.limit is None or (tasks is not None and tasks <= self.limit):
            return
        self.limit, self.ended = tasks, False
        for trial in self.trials:
            if trial.state == "complete" and trial.tasks and trial.done < trial.tasks:
                trial.state = "open"

    def wanted_tasks(self, trial: Trial) -> int | None:
        """How many tasks this trial is to learn, once its stream is known."""
        if trial.tasks is None or self.limit is None:
            return trial.tasks
        return min(trial.tasks, self.limit)
