"""What is done to a command while it works: processes killed, nodes taken, disks filled, files
damaged.

Every victim is found by its handle, by Ray's table of actors or as a claim in the store, and
what it was making is noted before it dies. A fault that finds no victim yet is not a fault: it
is tried again until there is one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from raycl.store.lease import claims
from raycl.store.location import TEMPORARY, open_location
from soaking.jobs import Job
from soaking.processes import Bed, Command

Kind = Literal[
    "worker", "learner", "trial", "service", "raylet", "node", "drain", "driver", "stop", "twin",
    "disk", "damage", "cluster",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
MEANING: dict[Kind, str] = {
    "worker": "SIGKILL of a worker of the pool",
    "learner": "SIGKILL of the learner",
    "trial": "SIGKILL of a sweep's trial",
    "service": "SIGKILL of the packs' manifest",
    "raylet": "SIGKILL of a raylet",
    "node": "SIGKILL of all that runs on a node",
    "drain": "a node says that it goes, and goes",
    "driver": "SIGKILL of the command",
    "stop": "SIGTERM of the command",
    "twin": "the same command beside it, at once",
    "disk": "the store's disk is full for a while",
    "damage": "a stored file damaged, command killed",
    "cluster": "SIGKILL of all nodes, head included",
}
ACTORS = {
    "worker": "PoolWorker",
    "learner": "LearnerActor",
    "trial": "ImplicitFunc",
    "service": "ServiceWorker",
}
DRAIN_SECONDS, FULL_SECONDS = 25.0, 15.0
NOT_WORK = ("result", "sweep", "partial")
"""Kinds of artefacts that only enclose others, or are taken away again on purpose."""


@dataclass
class Scene:
    """A command at work, and all that can be done to it."""

    job: Job
    command: Command
    bed: Bed
    store: Path
    chance: random.Random
    began: float
    """When the command was first given, by the clock of files."""
    new_bed: Callable[[], None]
    new_twin: Callable[[], None]
    later: Callable[[float, Callable[[], Any]], None]
    """Something to be done after so many seconds, or when the command has ended."""


@dataclass(frozen=True)
class Strike:
    """A fault that happened."""

    kind: Kind
    at: float
    """Seconds after the command was first given."""
    whom: str
    making: list[str]
    """Artefacts that the victims were making."""
    stored: dict[str, str] = field(repr=False)
    """Artefacts that were stored then, and a digest of their records."""
    damaged: str | None = None


def suits(kind: Kind, job: Job) -> bool:
    """Whether a job can meet such a fault."""
    match kind:
        case "worker":
            return job.pooled
        case "learner":
            return job.sort in ("run", "fit", "synth")
        case "trial":
            return job.sort == "sweep"
        case "service":
            return job.sort == "replay"
        case "twin" | "stop":
            return job.sort != "replay"  # whose script takes no signals
        case _:
            return True


def strike(kind: Kind, scene: Scene, at: float) -> Strike | None:
    """Does it, if there is somebody to whom it can be done."""
    match kind:
        case "worker" | "learner" | "trial" | "service":
            return _kill_actor(kind, scene, at)
        case "raylet" | "node" | "drain":
            return _take_node(kind, scene, at)
        case "driver" | "stop":
            found = _struck(kind, scene, at, scene.job.name, [scene.command.pid])
            scene.command.signal(signal.SIGTERM if kind == "stop" else signal.SIGKILL)
            return found
        case "twin":
            scene.new_twin()
            return _struck(kind, scene, at, scene.job.name, [])
        case "disk":
            return _fill(scene, at)
        case "damage":
            return _damage(scene, at)
        case "cluster":
            found = _struck(kind, scene, at, "all nodes", scene.bed.pids())
            scene.bed.kill()
            scene.new_bed()
            return found


def _struck(kind: Kind, scene: Scene, at: float, whom: str, pids: list[int]) -> Strike:
    making = in_the_making(scene.store)
    lost = sorted(key for key, pid in making.items() if pid in pids)
    return Strike(kind, at, whom, lost, records(scene.store))


def _kill_actor(kind: Kind, scene: Scene, at: float) -> Strike | None:
    found = [a for a in scene.bed.ask("actors") if ACTORS[kind] in a["kind"]]
    if not found:
        return None
    victim = scene.chance.choice(found)
    struck = _struck(kind, scene, at, f"process {victim['pid']}", [victim["pid"]])
    try:
        os.kill(victim["pid"], signal.SIGKILL)
    except ProcessLookupError:
        return None
    return struck


def _take_node(kind: Kind, scene: Scene, at: float) -> Strike | None:
    """A node where something of ours is."""
    known = scene.bed.ask("nodes")
    places = sorted({a["node"] for a in scene.bed.ask("actors")} & set(known))
    if not places:
        return None
    node = scene.chance.choice(places)
    struck = _struck(kind, scene, at, f"node {node[:8]}", scene.bed.ask("inside", node=node))
    if kind == "drain":
        scene.bed.ask("drain", node=node, seconds=DRAIN_SECONDS)
        scene.later(DRAIN_SECONDS, lambda: _lose(scene.bed, node))
    else:
        scene.bed.ask("lose", node=node, whole=kind == "node")
    return struck


def _lose(bed: Bed, node: str) -> None:
    if node in bed.ask("nodes"):
        bed.ask("retire", node=node)


def _fill(scene: Scene, at: float) -> Strike:
    """Takes all that is left of the small disk on which the store lies."""
    filler = scene.store.parent / "filler"
    struck = _struck("disk", scene, at, str(scene.store.parent), [])
    with filler.open("wb", buffering=0) as file:
        size = 2**20
        while size:
            try:
                file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    scene.later(FULL_SECONDS, lambda: filler.unlink(missing_ok=True))
    return struck


def _damage(scene: Scene, at: float) -> Strike | None:
    """Of an artefact or of a journal; the command is killed, so that it reads what is stored."""
    tops = (scene.store / "artefacts", scene.store / "journals")
    found = (f for top in tops for f in sorted(top.rglob("*")) if f.is_file())
    files = [f for f in found if not f.name.endswith(TEMPORARY)]
    # What the command itself has written is sure to be read again.
    own = [f for f in files if scene.began <= _written(f)]
    if not files or (scene.job.sort != "replay" and not own):
        return None
    file = scene.chance.choice(own or files)
    how = scene.chance.choice(("flipped", "cut", "emptied"))
    whom = f"{file.relative_to(scene.store)} {how}"
    struck = _struck("damage", scene, at, whom, [scene.command.pid])
    with contextlib.suppress(FileNotFoundError):  # a partial state, gone meanwhile
        damage(file, how, scene.chance)
    scene.command.signal(signal.SIGKILL)
    key = str(file.parent.relative_to(scene.store)).removeprefix("artefacts/")
    return Strike("damage", at, whom, struck.making, struck.stored, key)


def _written(file: Path) -> float:
    """When, by the clock of files; long ago for one that is gone meanwhile."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def damage(file: Path, how: str, chance: random.Random) -> None:
    """As a disk does it: in place."""
    size = file.stat().st_size
    with file.open("r+b") as opened:
        if how != "flipped" or not size:
            opened.truncate(size // 2 if how == "cut" else 0)
            return
        where = chance.randrange(size)
        opened.seek(where)
        byte = opened.read(1)[0] ^ (1 << chance.randrange(8))
        opened.seek(where)
        opened.write(bytes([byte]))


def in_the_making(store: Path) -> dict[str, int]:
    """Artefacts for which a living process holds the lease, and the process."""
    held = [c for _, _, c in claims(open_location(str(store))) if c is not None]
    return {
        claim.key: claim.process.pid
        for claim in held
        if claim.ticket is not None
        and claim.process.is_here()
        and not claim.key.startswith(NOT_WORK)
        and not (store / "artefacts" / claim.key / "record.json").exists()
    }


def records(store: Path) -> dict[str, str]:
    """Every stored artefact by its key, with a digest of its record."""
    root, found = store / "artefacts", {}
    for file in root.rglob("record.json"):
        with contextlib.suppress(FileNotFoundError):
            key = str(file.parent.relative_to(root))
            if not key.startswith("partial/"):
                found[key] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found
