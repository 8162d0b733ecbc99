"""Heartbeats in the store: what each command is doing, for any machine that reads the store.

Each process that drives a command keeps one small object, `pulses/<job>/<nonce>.json`, and
writes it again when it begins, at most every `SECONDS`, and when it ends. A thread writes it,
so that a command waiting for hours is not taken for dead; what it last had news of is in it.

Guarantees: the object is whole at any moment; no failure to write it harms the command; it
enters no key. A command that died says nothing more: it is *silent*, at once where its process
is known to be gone (on its own host), else after some beats that did not come, by the store's
own times and the reader's clock. What is older than a week, `gc` takes away.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from raycl.errors import InterruptedByUser, StoppedError, StoreError
from raycl.observe.events import Observer
from raycl.observe.pulse import Listening, Pulse, clock
from raycl.observe.watchers import everyone
from raycl.redaction import redacted
from raycl.store.artefact import slug
from raycl.store.location import TEMPORARY, Location
from raycl.store.process import Process

FOLDER = "pulses"
JOB = "RAYCL_JOB"
"""The variable in which a job finds its id."""
ALONE = "here"
"""In the place of a job's id, for commands that nobody submitted."""
SECONDS, SECONDS_AFAR = 15.0, 30.0
MISSED = 4
"""Beats that may fail to come before a command is called silent."""
_LONGEST_WHY = 300


@dataclass(frozen=True)
class Heard:
    """A pulse as it was found."""

    job: str
    pulse: Pulse
    process: Process
    seconds: float
    """Between two beats."""
    written: float
    """When, as the store says."""
    age: float
    """Seconds since, when it was read."""

    @property
    def state(self) -> str:
        """running, silent, done, stopped or failed."""
        if self.pulse.state != "running" or self.process.is_here():
            return self.pulse.state
        late = self.age > MISSED * self.seconds
        return "silent" if late or self.process.is_gone() else "running"

    @property
    def quiet(self) -> float:
        """Seconds since it last had news."""
        return max(0.0, self.age + (self.written - self.pulse.heard))

    def sentence(self) -> str:
        """For people: what it does, and how long ago it said so."""
        match self.state:
            case "silent":
                told = f"silent for {clock(self.age)}: {self.process} died or is cut off"
            case "running":
                told = f"beat {_ago(self.age)}, {self.process}"
                if self.quiet > self.age + MISSED * self.seconds:
                    told += f", no news for {clock(self.quiet)}"
            case ended:
                told = f"{ended} {_ago(self.age)}"
                told += f": {self.pulse.why}" if self.pulse.why else ""
        return f"{self.pulse.sentence()} ({told})"

    def as_json(self) -> dict[str, object]:
        return {
            **self.pulse.as_json(),
            "state": self.state,
            "job": None if self.job == ALONE else self.job,
            "process": str(self.process),
            "beat_seconds_ago": round(self.age, 1),
            "news_seconds_ago": round(self.quiet, 1),
        }


def _ago(seconds: float) -> str:
    return f"{clock(seconds)} ago" if seconds >= 60 else f"{seconds:.0f} s ago"


@contextlib.contextmanager
def beating(
    location: Location, title: str, observer: Observer, *, seconds: float | None = None
) -> Iterator[Observer]:
    """An observer to be told in place of the given one: what it hears is in the store too."""
    job = slug(os.environ.get(JOB) or ALONE)
    listening = Listening(title)
    pause = seconds or (SECONDS if location.local_root else SECONDS_AFAR)
    heart = _Beats(location, f"{FOLDER}/{job}/{secrets.token_hex(8)}.json", listening, pause)
    heart.start()
    try:
        yield everyone([listening, observer])
    except BaseException as error:
        stopped = isinstance(error, StoppedError | InterruptedByUser | KeyboardInterrupt)
        why = (str(error).splitlines() or [type(error).__name__])[0]
        listening.end("stopped" if stopped else "failed", redacted(why)[:_LONGEST_WHY])
        raise
    else:
        listening.end("done")
    finally:
        heart.stop()


class _Beats:
    """Writes a pulse at the beginning, then after each pause, and at the end."""

    def __init__(self, location: Location, path: str, listening: Listening, seconds: float) -> None:
        self._location, self._path, self._listening = location, path, listening
        self._seconds = seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raycl-pulse", daemon=True)

    def start(self) -> None:
        self._write()
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join(timeout=10)
        self._write()

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            self._write()

    def _write(self) -> None:
        body = {
            "pulse": self._listening.pulse.as_json(),
            "process": asdict(Process.this()),
            "seconds": self._seconds,
        }
        # A run is worth more than its heartbeat.
        with contextlib.suppress(StoreError):
            self._location.write(self._path, json.dumps(body).encode())


def heard(location: Location, job: str | None = None) -> list[Heard]:
    """The pulses of a job, or all of a store, oldest first; what cannot be read is left out."""
    found = []
    for file in location.files(f"{FOLDER}/{slug(job)}" if job else FOLDER):
        data = None if file.path.endswith(TEMPORARY) else location.read(file.path)
        if data is None:
            continue
        with contextlib.suppress(ValueError, TypeError, KeyError):
            body = json.loads(data)
            age = max(0.0, time.time() - file.modified)
            pulse, process = Pulse(**body["pulse"]), Process(**body["process"])
            whose = file.path.split("/")[1]
            seconds = float(body["seconds"])
            found.append(Heard(whose, pulse, process, seconds, file.modified, age))
    return sorted(found, key=lambda one: one.written)


def standing(found: list[Heard]) -> list[Heard]:
    """Of each job and command the pulse that counts: one that runs, else the last."""
    by_command: dict[tuple[str, str], Heard] = {}
    for one in sorted(found, key=lambda one: (one.state == "running", one.written)):
        by_command[one.job, one.pulse.key or one.pulse.title] = one
    return sorted(by_command.values(), key=lambda one: one.written)
