"""The live display on a terminal: a bar for the tasks, a bar for the stage, both with ETA."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from raycl.observe.console import Console
from raycl.observe.events import Event, RunDone, RunStarted, TaskDone
from raycl.observe.events import Progress as StageProgress
from raycl.observe.watchers import Lines, Watcher, sentence
from raycl.printable import plain


class _Speed(ProgressColumn):
    """Units per second, where there are some."""

    def render(self, task: Task) -> Text:
        speed = task.speed if task.fields["unit"] else None
        return Text(f"{speed:.3g}/s" if speed and speed >= 0.1 else "")


class Display:
    """Bars below, finished tasks and warnings as lines above."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            _Speed(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._run: TaskID | None = None
        self._stage: TaskID | None = None
        self._stage_name = ""

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted(tasks=tasks, done=done):
                self._forget()
                self._run = self.bars.add_task("tasks", total=tasks, completed=done, unit="")
            case StageProgress():
                self._show_stage(event)
            case TaskDone(task=task) if self._run is not None:
                self.bars.update(self._run, completed=task + 1)
            case RunDone():
                self._forget()
            case _:
                pass
        text = sentence(event)
        if text is not None:
            style = "yellow" if text.startswith(("warning", "lost")) else None
            self.bars.console.print(plain(text), style=style, highlight=False, markup=False)

    def _show_stage(self, event: StageProgress) -> None:
        name = event.stage if event.task < 0 else f"task {event.task + 1} · {event.stage}"
        if self._stage is None or name != self._stage_name:
            if self._stage is not None:
                self.bars.remove_task(self._stage)
            self._stage = self.bars.add_task(name, total=event.total, unit=f"{event.unit}s")
            self._stage_name = name
        self.bars.update(self._stage, completed=event.done, total=event.total)

    def _forget(self) -> None:
        for bar in (self._run, self._stage):
            if bar is not None:
                self.bars.remove_task(bar)
        self._run = self._stage = None

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()


def watcher_for_stderr() -> Watcher:
    """Bars on a terminal, plain lines anywhere else."""
    console = Console(stderr=True)
    return Display(console) if console.is_terminal else Lines()
