"""Workers and learners for the tests, in a module that worker processes can import."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from raycl.compute import LearnerContext, Reference
from raycl.errors import ConfigError, DataError, MethodError, StoppedError
from raycl.observe.events import Computed, Progress, Warned

DEADLINE_SECONDS = 60.0


def wait_for(path: Path) -> None:
    """Returns once the file is there."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not appear")
        time.sleep(0.02)


def leave(path: Path, text: str = "") -> None:
    """Writes a file that appears with its text."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    aside.write_text(text)
    aside.rename(path)


def lives(folder: Path) -> int:
    """A number that grows by one each time a process asks."""
    number = len(list(folder.glob("life-*"))) + 1
    leave(folder / f"life-{number}")
    return number


class Times:
    """Multiplies; leaves a file per instance if it is given a folder."""

    def __init__(self, factor: int, folder: Path | None = None) -> None:
        self.factor = factor
        if folder is not None:
            lives(folder)

    def __call__(self, item: int) -> int:
        return self.factor * item


class Fussy:
    """Raises for the items it has an error for, as often as told; notes each attempt."""

    def __init__(self, folder: Path, errors: dict[int, Exception], times: int = 100) -> None:
        self.folder = folder
        self.errors = errors
        self.times = times

    def __call__(self, item: int) -> int:
        error = self.errors.get(item)
        if error is None:
            return item
        attempt = len(list(self.folder.glob(f"{item}-*"))) + 1
        leave(self.folder / f"{item}-{attempt}")
        if attempt <= self.times:
            raise error
        return item


class Unbuildable:
    def __init__(self, error: Exception) -> None:
        raise error

    def __call__(self, item: int) -> int:
        return item


class Deadly:
    """Ends its own process for some items, the first `times` times."""

    def __init__(self, folder: Path, items: tuple[int, ...], times: int = 100) -> None:
        self.folder = folder
        self.items = items
        self.times = times

    def __call__(self, item: int) -> int:
        if item in self.items:
            attempt = len(list(self.folder.glob(f"{item}-*"))) + 1
            leave(self.folder / f"{item}-{attempt}")
            if attempt <= self.times:
                os._exit(1)
        return item


class DeadAtBirth:
    def __init__(self) -> None:
        os._exit(1)

    def __call__(self, item: int) -> int:
        return item


class Killable:
    """Says its pid and waits to be killed, in its first life; then works."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: int) -> int:
        if not (self.folder / "pid").exists():
            leave(self.folder / "pid", str(os.getpid()))
            wait_for(self.folder / "never")
        return item


class Sleeper:
    """Works for ever."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: int) -> int:
        leave(self.folder / f"started-{item}")
        wait_for(self.folder / "never")
        return item


class Threads:
    """How many threads the loaded numerical libraries would use."""

    def __call__(self, item: int) -> list[int]:
        assert np.ones((2, 2)) @ np.ones((2, 2)) is not None
        return [int(library["num_threads"]) for library in threadpoolctl.threadpool_info()]


class Summed:
    """The sum of a referenced array."""

    def __call__(self, reference: Reference) -> float:
        return float(reference.get().sum())


class Pid:
    def __call__(self, item: int) -> int:
        return os.getpid()


class Unsendable:
    """Returns what no process can send."""

    def __call__(self, item: int) -> Any:
        return threading.Lock()


class OwnPut:
    """Puts a value that its own process owns."""

    def __call__(self, item: int) -> Reference:
        from raycl.compute.ray_pool import RayPool

        return RayPool(workers=1).put(np.full(1000, item))


class Tally:
    """A service."""

    def __init__(self, start: int = 0) -> None:
        self.total = start

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    def refuse(self) -> None:
        raise DataError("the tally refuses", got="nothing", do="add something")

    def die(self, marker: Path) -> str:
        if not marker.exists():
            leave(marker)
            os._exit(1)
        return "born again"


class ServiceUser:
    """Adds its items to a named service, from its own process."""

    def __init__(self, name: str) -> None:
        from raycl.compute import WorkerSpec
        from raycl.compute.ray_pool import RayPool

        self.tally = RayPool(workers=1).service(name, WorkerSpec(Tally))

    def __call__(self, item: int) -> None:
        self.tally.call("add", item)


class Odd(Exception):  # noqa: N818 - it is odd
    """An exception that pickles and does not unpickle."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def add_one(context: LearnerContext, payload: int) -> int:
    for step in range(250):
        context.emit(Progress(0, "adding", step, 250))
    return payload + 1


def fail_with(context: LearnerContext, payload: str) -> None:
    context.emit(Warned("about to fail"))
    match payload:
        case "config":
            raise ConfigError("no such option", got="--colour", do="leave it out")
        case "method":
            raise MethodError("it diverged", got="nan", do="lower the rate")
        case "zero":
            raise ZeroDivisionError("a plain error")
        case _:
            raise Odd("one", "two")


def until_stopped(context: LearnerContext, payload: None) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    context.emit(Warned("running"))
    while not context.stopping() and time.monotonic() < deadline:
        time.sleep(0.01)
    context.emit(Warned("saved"))
    raise StoppedError("stopped at a step", do="run it again")


def deaf(context: LearnerContext, payload: Path) -> None:
    context.emit(Warned("running"))
    wait_for(payload / "never")


def resumable(context: LearnerContext, payload: tuple[Path, int]) -> int:
    """Does units of work, each stored; waits to be killed before the unit it is told."""
    folder, victim = payload
    life = lives(folder)
    for unit in range(3):
        if (folder / f"unit-{unit}").exists():
            continue
        if unit == victim and life == 1:
            leave(folder / "pid", str(os.getpid()))
            wait_for(folder / "never")
        leave(folder / f"unit-{unit}")
        context.emit(Computed("unit", str(unit), 0.0))
    return life


def dies_at_once(context: LearnerContext, payload: Path) -> None:
    lives(payload)
    os._exit(1)


def dies_after_each_unit(context: LearnerContext, payload: Path) -> int:
    life = lives(payload)
    if life <= 4:
        context.emit(Computed("unit", str(life), 0.0))
        wait_for(payload / f"seen-{life}")
        os._exit(1)
    return life


def maps_in_a_pool(context: LearnerContext, payload: list[int]) -> list[int]:
    from raycl.compute import WorkerSpec
    from raycl.compute.ray_pool import RayPool

    with RayPool(context.emit, workers=1, stopping=context.stopping) as pool:
        return sorted(d.value for d in pool.map_unordered(WorkerSpec(Times, (3,)), payload))
