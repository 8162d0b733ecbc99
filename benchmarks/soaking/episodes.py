"""One command of a soak from its first start to its good end, and what happened to it meanwhile.

A command that ends otherwise than with 0 is given again, as its user would: with the disk
freed, and on whatever cluster there is then.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soaking.faults import Kind, Scene, Strike, in_the_making, records, strike
from soaking.jobs import Job
from soaking.processes import Bed, Command
from soaking.verdict import Essence, essence

LIMIT_SECONDS = 300.0
"""For a command after its last disturbance; then it is said to hang."""
MOST_STARTS = 12
STOPPED = 75
SURVIVED: frozenset[Kind] = frozenset(
    ("worker", "learner", "trial", "service", "raylet", "node", "drain", "twin")
)
"""What a command is to get over by itself, without being given again."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Due:
    """When a fault is to be."""

    kind: Kind
    after: float
    """Seconds."""
    at_work: bool = False
    """Whether they count from when the command was first seen making something."""


Plan = list[Due]


class HopelessError(RuntimeError):
    """A command that does not come to its end."""


@dataclass
class Episode:
    """What became of a job."""

    job: Job
    calm: float | None = None
    """Seconds of the undisturbed command, if there was one."""
    seconds: float = 0.0
    worked_at: float | None = None
    """When it was first seen making something."""
    strikes: list[Strike] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    """Exit codes of the commands before the one that ended well."""
    by_hand: list[Kind | None] = field(default_factory=list)
    """For each of them, what it had met last."""
    again: list[str] = field(default_factory=list)
    """Artefacts that were stored at a strike, and were made again."""
    surprises: list[str] = field(default_factory=list)
    essences: list[Essence] = field(default_factory=list)
    """Of the command, and of its twins."""

    @property
    def damaged(self) -> set[str]:
        return {s.damaged for s in self.strikes if s.damaged is not None}

    def sentence(self) -> str:
        """For people who watch."""
        done = "; ".join(f"{s.kind} at {s.at:.0f} s ({s.whom})" for s in self.strikes)
        calm = "" if self.calm is None else f" (calm {self.calm:.0f})"
        codes = f", given again after {self.codes}" if self.codes else ""
        again = f", made again: {len(self.again)}" if self.again else ""
        return f"{self.job.name}: {self.seconds:.0f} s{calm}{codes}{again}. {done}"


class Stage:
    """Where episodes take place: a folder, and a cluster that may be replaced."""

    def __init__(self, folder: Path, env: dict[str, str], chance: random.Random) -> None:
        self.folder, self._env, self._chance = folder, env, chance
        self._commands: list[Command] = []
        self.bed = Bed(folder, env)

    def _new_bed(self) -> None:
        self.bed = Bed(self.folder, self._env)

    def _start(self, job: Job, store: Path) -> Command:
        self._commands = [command for command in self._commands if command.code is None]
        command = Command(job.placed(store, self.bed.address), self.folder, self._env)
        self._commands.append(command)
        return command

    def close(self) -> None:
        """Ends what still runs, if it was broken off, and the cluster."""
        for command in self._commands:
            command.signal(signal.SIGKILL)
            command.process.wait()
        self.bed.close()

    def perform(
        self, job: Job, store: Path, plan: Plan | None = None, calm: float | None = None
    ) -> Episode:
        """Runs the command until it has ended well, and disturbs it as planned."""
        if job.out is not None:
            shutil.rmtree(job.out, ignore_errors=True)
        return _Performance(self, job, store, list(plan or ()), calm).run()

    def scene(self, run: _Performance) -> Scene:
        return Scene(
            run.episode.job,
            run.command,
            self.bed,
            run.store,
            self._chance,
            run.began,
            new_bed=self._new_bed,
            new_twin=lambda: run.twins.append(self._start(run.episode.job, run.store)),
            later=run.do_later,
        )

    def start(self, run: _Performance) -> Command:
        return self._start(run.episode.job, run.store)


class _Performance:
    """An episode while it goes on."""

    def __init__(self, stage: Stage, job: Job, store: Path, plan: Plan, calm: float | None) -> None:
        self._stage, self.store, self._plan = stage, store, plan
        self.episode = Episode(job, calm)
        self.twins: list[Command] = []
        self._later: list[tuple[float, Callable[[], Any]]] = []
        self._began = self._news = time.monotonic()
        self.began = time.time()
        self._struck_since_start: list[Kind] = []
        self.command = stage.start(self)

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    def do_later(self, seconds: float, action: Callable[[], Any]) -> None:
        self._later.append((self._now + seconds, action))

    def run(self) -> Episode:
        while (code := self.command.code) != 0:
            self._do_what_is_due(self._now)
            self._look()
            if code is not None:
                self._give_again(code)
            elif self._plan and self._is_due(self._plan[0]):
                self._strike()
            self._mind_hanging()
            time.sleep(_POLL_SECONDS)
        told = [self.command, *self._ended_twins()]
        self._do_what_is_due(float("inf"))
        episode = self.episode
        episode.seconds = self._now
        episode.essences = [essence(episode.job, c.result(), self.store) for c in told]
        episode.again = self._made_again()
        return episode

    def _is_due(self, due: Due) -> bool:
        if not due.at_work:
            return due.after <= self._now
        began = self.episode.worked_at
        return began is not None and due.after <= self._now - began

    def _look(self) -> None:
        if self.episode.worked_at is None and in_the_making(self.store):
            self.episode.worked_at = self._now

    def _strike(self) -> None:
        kind = self._plan[0].kind
        found = strike(kind, self._stage.scene(self), self._now)
        if found is None:
            return
        self._plan.pop(0)
        self._news = time.monotonic()
        self.episode.strikes.append(found)
        self._struck_since_start.append(kind)

    def _give_again(self, code: int) -> None:
        met, words = self._struck_since_start, self.command.last_words()
        told = f"{self.episode.job.name} ended with {code} after {met}"
        if set(met) <= SURVIVED or (set(met) == {"stop"} and not self._stopped_well(code)):
            self.episode.surprises.append(f"{told}:\n{words}")
        sys.stderr.write(f"    {told}: {words.splitlines()[-1] if words else ''}\n")
        self.episode.codes.append(code)
        self.episode.by_hand.append(met[-1] if met else None)
        if len(self.episode.codes) >= MOST_STARTS:
            raise HopelessError(f"{told}, for the {MOST_STARTS}th time:\n{words}")
        self._do_what_is_due(float("inf"))
        self._struck_since_start = []
        self._news = time.monotonic()
        self.command = self._stage.start(self)

    def _stopped_well(self, code: int) -> bool:
        """Resumably; or by the signal, before it had begun to listen to any."""
        worked = self.episode.worked_at is not None and not self.episode.codes
        return code == STOPPED or (code == -signal.SIGTERM and not worked)

    def _do_what_is_due(self, now: float) -> None:
        due = [entry for entry in self._later if entry[0] <= now]
        self._later = [entry for entry in self._later if entry[0] > now]
        for _, action in due:
            action()

    def _mind_hanging(self) -> None:
        if time.monotonic() - self._news > LIMIT_SECONDS:
            name, words = self.episode.job.name, self.command.last_words()
            self.episode.surprises.append(f"{name} hangs:\n{words}")
            self._news = time.monotonic()
            self.command.signal(signal.SIGKILL)

    def _ended_twins(self) -> list[Command]:
        """Those that ended well; any other end surprises, unless all of them were struck."""
        deadline = time.monotonic() + LIMIT_SECONDS
        for twin in self.twins:
            while twin.code is None and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            twin.signal(signal.SIGKILL)
            if twin.process.wait() != 0 and self._kinds() <= SURVIVED:
                told = f"the twin of {self.episode.job.name} ended with {twin.code}"
                self.episode.surprises.append(f"{told}:\n{twin.last_words()}")
        return [twin for twin in self.twins if twin.code == 0]

    def _kinds(self) -> set[Kind]:
        return {s.kind for s in self.episode.strikes}

    def _made_again(self) -> list[str]:
        """Of what was stored when it was struck; what was damaged had to be."""
        now, found = records(self.store), set()
        for s in self.episode.strikes:
            found |= {key for key, record in s.stored.items() if now.get(key, record) != record}
        return sorted(found)
