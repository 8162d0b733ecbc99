"""What a run tells the world: small frozen events, one type per kind of news.

Events are plain data. They cross process boundaries, go into JSONL files and feed the
progress display. Whoever works calls an `Observer`; whoever watches provides one.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field

BEFORE_TASKS = -1
"""The task of a progress event that belongs to none."""


@dataclass(frozen=True)
class Event:
    """Something that happened, and when (seconds since the epoch)."""

    at: float = field(default_factory=time.time, kw_only=True)

    def as_dict(self) -> dict[str, object]:
        return {"event": type(self).__name__, **dataclasses.asdict(self)}


Observer = Callable[[Event], None]


def nobody(event: Event) -> None:
    """The observer that looks away."""


@dataclass(frozen=True)
class RunStarted(Event):
    """A run begins, or continues after `done` tasks."""

    key: str
    title: str
    tasks: int
    done: int = 0


@dataclass(frozen=True)
class Progress(Event):
    """A stage moved on: `done` of `total` units."""

    task: int
    stage: str
    done: int
    total: int
    unit: str = "step"


@dataclass(frozen=True)
class TaskDone(Event):
    """A task was learnt, saved and evaluated."""

    task: int
    tasks: int
    classes: int
    accuracy: float | None
    """Over the classes seen so far, in percent; None without test samples."""
    seconds: float


@dataclass(frozen=True)
class TaskMeasured(Event):
    """What the run would be worth if its stream ended after this task; told to those who ask."""

    task: int
    tasks: int
    values: dict[str, float | None]
    """Metrics in percent and costs, by name; null where undefined."""


@dataclass(frozen=True)
class RunDone(Event):
    """The run has its result."""

    key: str
    seconds: float


@dataclass(frozen=True)
class Computed(Event):
    """An artefact was made and stored."""

    kind: str
    key: str
    seconds: float


@dataclass(frozen=True)
class Reused(Event):
    """An artefact was found in the store."""

    kind: str
    key: str


@dataclass(frozen=True)
class Waiting(Event):
    """Another process is making what we need."""

    key: str
    holder: str


@dataclass(frozen=True)
class Warned(Event):
    """Something that the reader of the result should know."""

    message: str


@dataclass(frozen=True)
class WorkerLost(Event):
    """A worker process died; its unit of work runs again."""

    worker: str
    reason: str
    attempt: int
