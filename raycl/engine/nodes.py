"""What the nodes of a cluster see: the same store, the data, the same versions.

Guarantees: a store that is a folder of one machine is found out before work begins, because
every node must read what this process wrote there, and write itself; what was written to
find out is removed. Light: Ray is imported when a cluster is asked.
"""

from __future__ import annotations

import importlib.metadata
import platform
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raycl.errors import ClusterError, RayclError, StoreError
from raycl.store.location import open_location

FOLDER = "probes"
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Question:
    """What each node is asked, small enough to send."""

    store: str
    path: str
    word: str
    places: tuple[str, ...] = ()
    """Files and folders that it must have."""


@dataclass(frozen=True)
class NodeReport:
    """What one node has and sees."""

    node: str
    cpus: float = 0.0
    gpus: float = 0.0
    grows: bool = False
    python: str = ""
    ray: str = ""
    raycl: str = ""
    shm_gib: float = 0.0
    answered: bool = True
    problems: list[str] = field(default_factory=list)


def look(question: Question) -> dict[str, Any]:
    """Asked on a node: its versions, and whether store and places are there."""
    problems = [f"has no {place}" for place in question.places if not Path(place).exists()]
    problems += _store_problems(question)
    shm = shutil.disk_usage(_SHARED_MEMORY).total if _SHARED_MEMORY.is_dir() else 0
    return {
        "python": platform.python_version(),
        "ray": _version("ray"),
        "raycl": _version("raycl"),
        "shm_gib": round(shm / 2**30, 2),
        "problems": problems,
    }


def _store_problems(question: Question) -> list[str]:
    try:
        location = open_location(question.store)
        if location.read(question.path) != question.word.encode():
            return [f"sees another store at {question.store}"]
        own = f"{question.path}-{secrets.token_hex(6)}"
        location.write(own, b"written by a node")
        location.delete(own)
    except RayclError as error:
        return [f"cannot use the store: {error.what}"]
    return []


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "a copy that travels"


def look_from_all(
    store: str, places: Sequence[str] = (), *, others_only: bool = False
) -> list[NodeReport]:
    """The report of each node of the cluster that this process is connected to."""
    from raycl.compute.ray_nodes import on_each_node

    path, word = f"{FOLDER}/{secrets.token_hex(8)}", secrets.token_hex(16)
    location = open_location(store)
    location.write(path, word.encode())
    try:
        question = Question(store, path, word, tuple(places))
        answers = on_each_node(look, question, others_only=others_only)
    finally:
        location.delete(path)
        location.tidy(FOLDER)
    return [
        NodeReport(
            a.node, a.cpus, a.gpus, a.grows,
            **(a.value if a.error is None else {"answered": False, "problems": [a.error]}),
        )
        for a in answers
    ]  # fmt: skip


def check_from_others(store: str, places: Sequence[str] = ()) -> None:
    """An error unless every other node of the cluster sees the very same store, and the data."""
    reports = look_from_all(store, places, others_only=True)
    # A node that died meanwhile is no reason to refuse the others.
    heard = [report for report in reports if report.answered]
    bad = [f"{report.node} {problem}" for report in heard for problem in report.problems]
    if bad:
        more = f", and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise StoreError(
            "a node of the cluster cannot work with this store and these data",
            got="; ".join(bad[:3]) + more,
            do="name data and a store that every node mounts; a store may be s3:// or gs:// too",
        )


def as_rows(reports: Sequence[NodeReport]) -> list[dict[str, Any]]:
    """The reports as JSON."""
    return [asdict(report) for report in reports]


def from_rows(rows: Any) -> list[NodeReport]:
    """Reports that another process wrote; `ClusterError` if it wrote something else."""
    try:
        return [NodeReport(**row) for row in rows]
    except (TypeError, ValueError) as error:
        raise ClusterError(
            "the cluster's raycl answers in another form than this one",
            do="install the same version of raycl here and there",
        ) from error
