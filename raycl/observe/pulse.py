"""What a command is doing now, gathered from its events: small enough to be written often."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from raycl.observe.events import Event, Progress, RunStarted, TaskDone

State = Literal["running", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Pulse:
    """One command at one moment."""

    title: str
    began: float
    heard: float
    """When it last had news, by its own clock."""
    state: State = "running"
    why: str = ""
    """How it ended, if not well."""
    key: str = ""
    task: int = 0
    """Tasks that are finished."""
    tasks: int = 0
    stage: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    per_second: float | None = None
    stage_left: float | None = None
    """Seconds until the stage ends, as far as its pace tells."""
    left: float | None = None
    """Seconds until the last task ends, as far as the tasks before tell."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """For people."""
        words = [self.title]
        if self.tasks:
            words.append(f"task {min(self.task + 1, self.tasks)}/{self.tasks}")
        if self.state == "running" and self.stage:
            pace = "" if self.per_second is None else f", {rate(self.per_second)} {self.unit}s/s"
            left = "" if self.stage_left is None else f", {clock(self.stage_left)} left"
            words.append(f"{self.stage} {self.done}/{self.total} {self.unit}s{pace}{left}")
        if self.state == "running" and self.left is not None:
            words.append(f"all tasks in about {clock(self.left)}")
        return ", ".join(words)


class Listening:
    """An observer that knows the pulse."""

    def __init__(self, title: str) -> None:
        now = time.time()
        self.pulse = Pulse(title, began=now, heard=now)
        self._stage: tuple[str, float, int] = ("", 0.0, 0)
        """The stage, and when it was first heard of with how much of it done."""
        self._seconds: list[float] = []

    def __call__(self, event: Event) -> None:
        self.pulse = replace(self._after(event), heard=event.at)

    def end(self, state: State, why: str = "") -> None:
        """The last pulse."""
        self.pulse = replace(self.pulse, state=state, why=why, heard=time.time())

    def _after(self, event: Event) -> Pulse:
        match event:
            case RunStarted(key=key, title=title, tasks=tasks, done=done):
                return replace(self.pulse, key=key, title=title, tasks=tasks, task=done)
            case TaskDone(task=task, tasks=tasks, seconds=seconds):
                self._seconds.append(seconds)
                each = sum(self._seconds) / len(self._seconds)
                left = (tasks - task - 1) * each
                return replace(
                    self.pulse, task=task + 1, tasks=tasks, left=left,
                    stage="", done=0, total=0, unit="", per_second=None, stage_left=None,
                )  # fmt: skip
            case Progress():
                return self._within(event)
            case _:
                return self.pulse

    def _within(self, event: Progress) -> Pulse:
        name = f"{event.task} {event.stage} {event.unit}"
        if self._stage[0] != name:
            self._stage = name, event.at, event.done
        _, began, before = self._stage
        seconds, done = event.at - began, event.done - before
        pace = done / seconds if done > 0 and seconds > 0 else None
        return replace(
            self.pulse, stage=event.stage, done=event.done, total=event.total, unit=event.unit,
            per_second=pace, stage_left=(event.total - event.done) / pace if pace else None,
        )  # fmt: skip


def rate(per_second: float) -> str:
    """A pace with three digits, or as a whole number."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
