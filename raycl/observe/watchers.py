"""Observers: plain lines for a log, a JSONL file for machines, several at once."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from raycl.observe.events import (
    Event,
    Observer,
    Progress,
    Reused,
    RunDone,
    RunStarted,
    TaskDone,
    Waiting,
    Warned,
    WorkerLost,
)
from raycl.printable import plain
from raycl.redaction import redacted, secrets_here

STAGE_LINE_SECONDS = 15.0
"""A log hears of a long stage this often."""


class Watcher(Protocol):
    """An observer that must be closed."""

    def __call__(self, event: Event) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def everyone(observers: Sequence[Observer]) -> Observer:
    """One observer that tells them all."""

    def tell(event: Event) -> None:
        for observer in observers:
            observer(event)

    return tell


def sentence(event: Event) -> str | None:
    """The event as a line for people, or None where a line would be noise."""
    match event:
        case RunStarted(title=title, tasks=tasks, done=0):
            return f"{title}: {tasks} tasks"
        case RunStarted(title=title, tasks=tasks, done=done):
            return f"{title}: continues after task {done} of {tasks}"
        case TaskDone(task=task, tasks=tasks, classes=classes, accuracy=accuracy, seconds=seconds):
            shown = "    –" if accuracy is None else f"{accuracy:5.1f}"
            return (
                f"task {task + 1}/{tasks}  {classes:>4} classes  "
                f"accuracy {shown} %  {seconds:.1f} s"
            )
        case RunDone(seconds=seconds):
            return f"done in {seconds:.1f} s"
        case Warned(message=message):
            return f"warning: {message}"
        case Waiting(key=key, holder=holder):
            return f"waiting for {holder}, which is making {key}"
        case WorkerLost(worker=worker, reason=reason, attempt=attempt):
            return f"lost {worker} ({reason}); starting again, attempt {attempt}"
        case Reused(kind="result", key=key):
            return f"found {key}"
        case _:
            return None


class Lines:
    """One plain line per piece of news, for a terminal that is none."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stderr
        self._last_stage = time.monotonic()
        self._begun: tuple[str, float, int] = ("", 0.0, 0)
        """The stage, and when it was first heard of with how much of it done."""

    def __call__(self, event: Event) -> None:
        text = self._stage(event) if isinstance(event, Progress) else sentence(event)
        if text is not None:
            print(plain(text), file=self.stream, flush=True)

    def _stage(self, event: Progress) -> str | None:
        stage = f"{event.task} {event.stage}"
        if self._begun[0] != stage:
            self._begun = stage, time.monotonic(), event.done
        if time.monotonic() - self._last_stage < STAGE_LINE_SECONDS:
            return None
        self._last_stage = time.monotonic()
        where = "" if event.task < 0 else f"task {event.task + 1}: "
        pace = self._pace(event)
        return f"{where}{event.stage} {event.done}/{event.total} {event.unit}s{pace}"

    def _pace(self, event: Progress) -> str:
        """How fast the stage is and how long it will take, once that can be told."""
        _, began, before = self._begun
        seconds, done = time.monotonic() - began, event.done - before
        if done <= 0 or seconds <= 0:
            return ""
        left = round((event.total - event.done) * seconds / done)
        return f", {done / seconds:.3g}/s, eta {left // 60}:{left % 60:02d}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.flush()


class JsonLines:
    """Every event as one JSON line without secrets, in a file created when the first arrives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._secrets = secrets_here()
        self._file: IO[str] | None = None
        self.fault: str | None = None
        """Why nothing more is written, if something went wrong."""

    def __call__(self, event: Event) -> None:
        if self.fault is not None:
            return
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("a", encoding="utf-8")
            line = json.dumps(event.as_dict(), allow_nan=False)
            self._file.write(redacted(line, self._secrets) + "\n")
            self._file.flush()
        except OSError as error:
            # A run is worth more than its log.
            self.fault = f"this run is no longer logged: {error}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
