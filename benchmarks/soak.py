"""Runs, fits and sweeps of every method on a cluster of three nodes that is broken all the time.

Expectation, written before measuring: every result is the undisturbed one bit for bit; what was
stored is never made again, unless we damaged it; the death of a worker, of a learner, of a trial
or of a service asks nobody to do anything, and costs what its process takes to begin.

First each command is given once and left alone. Then all of them again, in rounds with a fresh
store each, until the time is up, while workers, actors, raylets, nodes and commands are killed,
nodes drained, the store's disk filled and stored files damaged at moments that a seed chooses.
It ends with 1 if any result differs, if a good artefact was made again, if something was left in
the store that `raycl store gc` does not take away, or if a process lived on. Linux; disks are
filled where a tmpfs may be mounted.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from soaking import disk
from soaking.episodes import Due, Episode, HopelessError, Plan, Stage
from soaking.faults import KINDS, Kind, suits
from soaking.jobs import QUICK, Job, made_jobs
from soaking.processes import adopt_orphans, end_all, environment, leftovers
from soaking.tally import as_json, as_table, rows
from soaking.verdict import (
    differences,
    left_behind,
    payloads,
    store_differences,
    unsound,
)

FAULTS_AT_ONCE = (1, 1, 1, 1, 1, 1, 2, 2, 2, 3)
CALM_SHARE = 0.4
"""Of the time, for the commands that are left alone; the others then do not take part."""
TABLE_WIDTH = 120
EARLIEST, LATEST = 0.05, 0.8
"""Of the time that the undisturbed command took: when it may be struck."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass
class Calm:
    """What the undisturbed commands gave."""

    store: Path
    episodes: dict[str, Episode] = field(default_factory=dict)
    payloads: dict[str, dict[str, str]] = field(default_factory=dict)


class Deck:
    """Kinds of faults in a random order, none much more often than the others."""

    def __init__(self, kinds: Sequence[Kind], chance: random.Random, *, once: bool) -> None:
        self._kinds, self._chance, self._once = list(kinds), chance, once
        self.left = chance.sample(self._kinds, len(self._kinds))

    def draw(self, job: Job, number: int) -> list[Kind]:
        """So many that the job can meet; fewer where each comes once."""
        drawn: list[Kind] = []
        while len(drawn) < number:
            kind = next((kind for kind in self.left if suits(kind, job)), None)
            if kind is not None:
                self.left.remove(kind)
                drawn.append(kind)
            elif self._once or not any(suits(kind, job) for kind in self._kinds):
                break
            else:
                self.left += self._chance.sample(self._kinds, len(self._kinds))
        return drawn

    def give_back(self, kinds: Iterable[Kind]) -> None:
        """What found no victim before its command ended."""
        self.left[:0] = kinds


class Soak:
    """The whole of it."""

    def __init__(self, asked: argparse.Namespace, folder: Path, env: dict[str, str]) -> None:
        self.asked, self.folder = asked, folder
        self.chance = random.Random(asked.seed)
        self.stores = Path(asked.store).absolute() if asked.store else folder / "stores"
        self.stores.mkdir(parents=True, exist_ok=True)
        self.deadline = time.monotonic() + 60 * asked.minutes
        self.jobs, kinds = chosen(made_jobs(folder), asked)
        self.kinds = [k for k in kinds if k != "disk" or not asked.no_disk]
        self.deck = Deck(self.kinds, self.chance, once=asked.quick)
        self.stage = Stage(folder, env, self.chance)
        self.calm = Calm(self.stores / "calm")
        self.episodes: list[Episode] = []
        self.faults: list[str] = []
        """All that must not be."""
        self.left_out: list[str] = []
        self.rounds = 0

    def rest(self) -> None:
        """Every command once, left alone; in a short soak, as many as a part of it allows."""
        for job in list(self.jobs):
            if self._spent() > CALM_SHARE and not self.asked.quick:
                self.left_out.append(job.name)
                self.jobs.remove(job)
                continue
            episode = self.stage.perform(job, self.calm.store)
            say(f"calm  {episode.sentence()}")
            if episode.codes:
                raise HopelessError(f"{job.name} fails undisturbed: {episode.surprises}")
            self.calm.episodes[job.name] = episode
        self.calm.payloads = payloads(self.calm.store)
        self.faults += left_behind(self.calm.store)

    def _spent(self) -> float:
        """The share of the time that is over."""
        return 1 - (self.deadline - time.monotonic()) / (60 * self.asked.minutes)

    def disturb(self) -> None:
        """Rounds, each with a fresh store, until the time is up or, quickly, all was done."""
        while not self._over():
            self.rounds += 1
            self._round(self.stores / f"round-{self.rounds}")

    def _over(self) -> bool:
        if self.asked.quick:
            return not any(suits(kind, job) for kind in self.deck.left for job in self.jobs)
        return time.monotonic() >= self.deadline

    def _round(self, place: Path) -> None:
        if not self.asked.no_disk:
            disk.mount(place)
        store, damaged, before = place / "store", set[str](), len(self.faults)
        store.mkdir(parents=True)
        whole = True
        for job in self.jobs:
            if self._over():
                whole = False
                break
            plan, calm = self._plan(job), self.calm.episodes[job.name].seconds
            if self.asked.quick and not plan:
                whole = False
                continue
            episode = self.stage.perform(job, store, plan, calm)
            say(episode.sentence())
            damaged |= episode.damaged
            self.deck.give_back(due.kind for due in plan[len(episode.strikes) :])
            self.episodes.append(episode)
            self.faults += self._judge(episode, damaged)
        self.faults += self._judge_store(store, damaged, whole)
        for fault in self.faults[before:]:
            say(f"NOT GOOD: {fault}")
        if len(self.faults) > before:
            shutil.copytree(store, self.stores / f"kept-{self.rounds}")
        if not self.asked.no_disk:
            disk.unmount(place)

    def _plan(self, job: Job) -> Plan:
        number = 3 if self.asked.quick else self.chance.choice(FAULTS_AT_ONCE)
        dues = [self._due(kind, job) for kind in self.deck.draw(job, number)]
        return sorted(dues, key=lambda due: (due.at_work, due.after))

    def _due(self, kind: Kind, job: Job) -> Due:
        """Anywhere in the command's time or, as often, while it makes something."""
        calm = self.calm.episodes[job.name]
        share = self.chance.uniform(EARLIEST, LATEST)
        if calm.worked_at is None or self.chance.random() < 0.5:
            return Due(kind, share * calm.seconds)
        return Due(kind, share * (calm.seconds - calm.worked_at), at_work=True)

    def _judge(self, episode: Episode, damaged: set[str]) -> list[str]:
        name, found = episode.job.name, list(episode.surprises)
        calm = self.calm.episodes[name].essences[0]
        for said in episode.essences:
            found += [f"{name}: {d}" for d in differences(calm, said)]
        found += [f"{name}: {k} was made again" for k in episode.again if k not in damaged]
        return found

    def _judge_store(self, store: Path, damaged: set[str], whole: bool) -> list[str]:
        calm = self.calm.payloads
        if not whole:
            there = payloads(store)
            calm = {key: kept for key, kept in calm.items() if key in there}
        found = [*store_differences(calm, store, damaged), *unsound(store, damaged)]
        return [*found, *left_behind(store)]

    def close(self) -> None:
        self.stage.close()
        left = leftovers(set())
        end_all(left)
        self.faults += [f"lived on: process {pid}, {name}" for pid, name in left]

    def told(self) -> dict[str, Any]:
        calm = sum(episode.calm or 0.0 for episode in self.episodes)
        disturbed = sum(episode.seconds for episode in self.episodes)
        return {
            "name": "soak",
            "seed": self.asked.seed,
            "jobs": len(self.jobs),
            "rounds": self.rounds,
            "commands": len(self.episodes),
            "faults": sum(len(episode.strikes) for episode in self.episodes),
            "by_kind": as_json(rows(self.episodes)),
            "calm_seconds": round(calm, 1),
            "disturbed_seconds": round(disturbed, 1),
            "ratio": round(disturbed / calm, 2) if calm else None,
            "not_good": self.faults,
            "skipped": {"disk": self.asked.no_disk} if self.asked.no_disk else {},
            "left_out": self.left_out,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "load": os.getloadavg()[0],
            "versions": {name: version(name) for name in ("ray", "torch")},
        }


def chosen(jobs: list[Job], asked: argparse.Namespace) -> tuple[list[Job], list[Kind]]:
    """The jobs and the kinds of faults that were asked for, by name; by default all."""
    names = {job.name for job in jobs}
    for name in asked.only:
        if name not in names and name not in KINDS:
            close = difflib.get_close_matches(name, [*names, *KINDS], n=1)
            sys.exit(f"soak: neither a job nor a fault: {name}; did you mean {close}?")
    wanted = names & set(asked.only) or (set(QUICK) if asked.quick else names)
    kinds = [kind for kind in KINDS if kind in asked.only] or list(KINDS)
    return [job for job in jobs if job.name in wanted], kinds


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="all in all [60]")
    parser.add_argument("--seed", type=int, default=0, help="of what is struck, and when [0]")
    parser.add_argument("--quick", action="store_true", help="few jobs, each fault once")
    parser.add_argument("--store", help="a folder for the stores [a temporary one]")
    parser.add_argument("--only", action="append", default=[], help="a job or a kind of fault")
    parser.add_argument("--json", action="store_true", help="no table, only the JSON object")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    asked.no_disk = disk.enter_namespace()
    if asked.store and Path(asked.store).exists() and any(Path(asked.store).iterdir()):
        sys.exit(f"soak: {asked.store} is not empty; what it holds would not be computed")
    if asked.no_disk:
        say(f"no disk will be filled: {asked.no_disk}")
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of what closes all
    # Short, because Unix sockets below it have a limit of about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp"))
    env = environment(folder)
    words = [sys.executable, "-m", "soaking.materials", str(folder)]
    made = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    if made.returncode:
        sys.exit(f"soak: the materials could not be made:\n{made.stderr}")
    soak = Soak(asked, folder, env)
    try:
        soak.rest()
        soak.disturb()
    except HopelessError as error:
        soak.faults.append(str(error))
    finally:
        soak.close()
    if not asked.json:
        console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
        console.print(as_table(rows(soak.episodes)))
    print(json.dumps(soak.told()))
    if soak.faults:
        say(f"{len(soak.faults)} things were not good; all is kept in {folder} and {soak.stores}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
