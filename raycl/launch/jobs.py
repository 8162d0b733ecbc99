"""What all ways of sending have in common: jobs, their states, and who keeps them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from raycl.errors import ConfigError
from raycl.launch.plan import Plan

State = Literal["waiting", "running", "done", "failed", "stopped"]
LIVE: tuple[State, ...] = ("waiting", "running")
_ID = re.compile(r"(raycl-[0-9a-f]+)-([0-9]+)")


@dataclass(frozen=True)
class Job:
    """One attempt at a command, as the place that runs it sees it."""

    id: str
    state: State
    detail: str = ""
    code: int | None = None
    """The exit code of the command, once it has one."""
    started: str = ""

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def exit_code(self) -> int:
        """What `wait` ends with: never 0 unless the command's was."""
        if self.state == "done":
            return 0
        return self.code or (75 if self.state == "stopped" else 1)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "live": self.live}


class AlreadySent(Exception):  # noqa: N818 - no fault: another process was faster
    """Another process has sent this attempt."""


class Sender(Protocol):
    """A place that takes jobs."""

    def jobs(self) -> list[Job]:
        """Those that raycl sent, as far as the place remembers."""

    def job(self, id: str) -> Job:
        """One of them; `ConfigError` if there is none."""

    def send(self, plan: Plan) -> None:
        """Sends it; `AlreadySent` if this attempt was sent before."""

    def log(self, id: str, *, follow: bool) -> Iterator[str]:
        """What the command printed; with `follow`, until it ends."""

    def stop(self, id: str) -> None:
        """Asks the command to save and stop."""


def name_and_attempt(id: str) -> tuple[str, int] | None:
    """The parts of a job's id, if it is one of ours."""
    match = _ID.fullmatch(id)
    return (match[1], int(match[2])) if match else None


def is_ours(id: str) -> bool:
    """Whether raycl gave a job its name."""
    return _ID.fullmatch(id) is not None


def attempts_of(name: str, jobs: list[Job]) -> dict[int, Job]:
    """Every attempt at a command by its number."""
    parts = ((name_and_attempt(job.id), job) for job in jobs)
    return {found[1]: job for found, job in parts if found and found[0] == name}


def picked(asked: str, jobs: list[Job]) -> Job:
    """The job of an id, of its beginning, or the last attempt at a command."""
    exact = [job for job in jobs if job.id == asked]
    if exact:
        return exact[0]
    near = [job for job in jobs if job.id.startswith((asked, f"raycl-{asked}"))]
    names = {found[0] for job in near if (found := name_and_attempt(job.id))}
    if len(names) == 1:
        attempts = attempts_of(names.pop(), near)
        return attempts[max(attempts)]
    known = ", ".join(sorted(job.id for job in (near or jobs))[-5:]) or "none"
    what = "several jobs begin so" if near else "no job of this cluster has this id"
    raise ConfigError(what, got=asked, do=f"known: {known}; `raycl jobs list` shows all")
