"""A foreign matrix as a result in the store, beside our own and never taken for one of them.

Guarantees: its label says that it is imported, wherever it is shown; every metric that a matrix
allows, by our definitions, and a reason for each other; the same file twice is one result, and
two that contradict each other are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raycl.config.spec import Json, digest
from raycl.errors import ConfigError, DataError
from raycl.metrics import definitions as d
from raycl.metrics.matrices import Matrices, Table
from raycl.report.imported.mammoth import read_mammoth
from raycl.report.imported.matrix import ForeignMatrix, Unit, Value, checked
from raycl.report.imported.matrix_csv import read_csv
from raycl.report.reading import FinishedRun, finished_runs
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store

Protocol = Literal["class-incremental", "x-tail", "task-incremental"]
Format = Literal["csv", "mammoth"]

KIND = "result"
MARK = "(imported)"
REVISION = 1
"""Raised when the layout of an imported result changes."""

NO_EARLIER = "the imported matrix has no accuracy on tasks before they are learnt"
NO_SEEN = "the imported matrix is among all classes, and says nothing among those seen so far"
NO_ZERO_SHOT = "the imported matrix has no zero-shot row"
NO_SAMPLES = "it was imported as a matrix, without predictions"
NO_COUNTS = "how many test samples each task has was not imported (--tests)"

_POOLED = ("stage_pooled", "last_pooled", "avg_inc_pooled")
_OF_MATRICES = (
    *_POOLED, "stage_task_mean", "last_task_mean", "avg_inc_task_mean", "forgetting",
    "forgetting_union", "bwt", "bwt_union", "fwt", "fwt_raw", "ci_transfer", "transfer",
    "average", "last_union", "transfer_over_zero_shot",
)  # fmt: skip
_OF_SAMPLES = ("last_macro", "ece_seen", "ece_unseen", "predicted_recent", "predicted_recent_fair")


@dataclass(frozen=True)
class Said:
    """What a user says of a file; what is left out is the file's, or not stated."""

    method: str | None = None
    stream: str | None = None
    backbone: str | None = None
    protocol: Protocol | None = None
    seeds: tuple[int, ...] = ()
    """One for each run of the file, in order."""
    tests: tuple[int, ...] = ()
    """Test samples of each task."""
    unit: Unit | None = None
    like: FinishedRun | None = None
    """A run of ours on the same stream, backbone, tasks and seed."""


@dataclass(frozen=True)
class Imported:
    """A stored import, and whether this call stored it."""

    values: dict[str, Any]
    new: bool


def import_file(store: Store, path: Path, said: Said, form: Format | None = None) -> list[Imported]:
    """Each run of the file as a stored result."""
    data = _bytes(path)
    runs = list(_runs(data, path, said, form))
    if not runs:
        raise DataError(f"{path.name} holds no run")
    if said.seeds and len(said.seeds) != len(runs):
        raise ConfigError(
            "one seed for each run of the file",
            got=f"{len(said.seeds)} for {len(runs)}",
            do="name them in the file's order: --seed 0 --seed 1",
        )
    origin: dict[str, Json] = {"file": path.name, "sha256": sha256(data).hexdigest()}
    results = []
    for number, run in enumerate(runs):
        seed = said.seeds[number] if said.seeds else _seed(run, said)
        results.append(_result(run, said, seed, origin))
    return list(_stored(store, results))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("the file cannot be read", got=str(path), do=error.strerror) from error


def _runs(data: bytes, path: Path, said: Said, form: Format | None) -> Iterator[ForeignMatrix]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is no text", do="name a CSV, or a log of mammoth") from error
    if form is None:
        form = "mammoth" if path.suffix == ".pyd" or text.lstrip().startswith("{") else "csv"
    found = [read_csv(text, path.name)] if form == "csv" else read_mammoth(text, path.name)
    task_il = form == "mammoth" and "task-il" in path.resolve().parts
    for number, run in enumerate(found, start=1):
        where = path.name if form == "csv" else f"{path.name}, run {number}"
        if task_il and said.protocol is None:
            do = "say --protocol task-incremental, which no other protocol is compared with"
            raise DataError(f"{where}: of task-il, where the task is known at test", do=do)
        yield checked(run, where, said.unit)


def _seed(run: ForeignMatrix, said: Said) -> int | None:
    if run.seed is None and said.like is not None:
        return int(said.like.values["seeds"]["order"])
    return run.seed


def _stored(store: Store, results: Sequence[dict[str, Any]]) -> Iterator[Imported]:
    """All of them or none: what contradicts is found before anything is written."""
    known = [run.values for run in finished_runs(store) if run.values.get("imported")]
    for place, values in enumerate(results):
        _refuse_contradiction(values, [*known, *results[:place]])
    held = {values["key"] for values in known}
    for values in results:
        if values["key"] not in held:
            store.put(_spec(values), {"result.json": values})
        yield Imported(values, values["key"] not in held)


def _refuse_contradiction(values: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> None:
    for other in known:
        same = all(other[name] == values[name] for name in ("setting", "seeds"))
        if same and other["key"] != values["key"]:
            seed = values["seeds"].get("order", "not stated")
            raise ConfigError(
                f"another import says otherwise of {values['label']} on {values['stream_label']}",
                got=f"seed {seed}, imported from {other['imported']['file']}",
                do="if it is another run, give its --seed or another --method; if it replaces the "
                f"other: `raycl store discard {other['key']}`",
            )


def _spec(values: Mapping[str, Any]) -> ArtefactSpec:
    identity: dict[str, Json] = {
        "imported": values["setting"],
        "seeds": values["seeds"],
        "cells": digest([values["r_seen"], values["r_union"], values["zero_shot"]]),
    }
    name = f"imported-{values['method']}-{values['stream']}"
    return ArtefactSpec(KIND, name, identity, identity, REVISION)


def _result(
    run: ForeignMatrix, said: Said, seed: int | None, origin: Mapping[str, Json]
) -> dict[str, Any]:
    method = said.method or run.method
    if not method:
        raise ConfigError("whose result is this?", got=str(origin["file"]), do="name its --method")
    where = _where(run, said)
    made = _matrices(run, said.tests or _counts(said.like, len(run.tasks)))
    metrics, why = _metrics(made, counted=bool(said.tests or said.like))
    if made.no_union is None and len(run.tasks) > 1:
        why = {name: NO_SEEN if "was not evaluated" in text else text for name, text in why.items()}
    options = {name: str(value) for name, value in run.options.items()}
    meaning = [method, where["stream_label"], where["backbone"], where["protocol"], options]
    seeds = {} if seed is None else dict.fromkeys(("order", "shot", "val", "init"), seed)
    values: dict[str, Any] = {
        "key": "",
        "method": method,
        "label": f"{method} {MARK}",
        **where,
        "setting": digest(["imported", *meaning]),
        "revisions": [],
        "seeds": seeds,
        "missing_text": 0,
        "warnings": list(run.warnings),
        "imported": {**origin, "tasks": list(run.tasks), "options": options},
        "r_seen": _plain(made.seen),
        "r_union": _plain(made.union),
        "zero_shot": _plain(made.zero_shot),
        "metrics": metrics,
        "why_null": why,
        "empty_test_classes": [],
        "state_mib": None,
        "seconds": None,
    }
    return {**values, "key": _spec(values).key}


def _where(run: ForeignMatrix, said: Said) -> dict[str, Any]:
    """On what it was measured: as a run of ours, or in the user's words."""
    tasks = len(run.tasks)
    own = said.protocol or ("x-tail" if run.is_whole and tasks > 1 else "class-incremental")
    if said.like is None:
        stream = said.stream or run.stream or "+".join(run.tasks)
        plural = "s" if tasks > 1 else ""
        return {
            "stream": stream,
            "stream_label": f"{stream}, {tasks} task{plural}",
            "backbone": said.backbone or run.backbone or "not stated",
            "protocol": own,
            "tasks": [],
            "class_names": [],
            "contents": [],
        }
    ours = said.like.values
    if len(ours["r_seen"]) != tasks:
        raise DataError(
            "the matrix has other tasks than the run that it is said to be like",
            got=f"{tasks} in place of {len(ours['r_seen'])}",
        )
    for name, word in (("stream", said.stream), ("backbone", said.backbone)):
        if word is not None and word != ours[name]:
            do = f"leave --{name} out: --like says it"
            raise ConfigError(f"--{name} contradicts --like", got=word, do=do)
    if said.protocol is not None and said.protocol != ours["protocol"]:
        raise ConfigError("--protocol contradicts --like", got=said.protocol, do="leave it out")
    shared = ("stream", "stream_label", "backbone", "protocol", "tasks", "class_names")
    experiment = {k: v for k, v in (ours.get("experiment") or {}).items() if k in _SHARED}
    taken = [*shared, *(name for name in ("contents", "weights") if name in ours)]
    return {**{name: ours[name] for name in taken}, "experiment": experiment}


_SHARED = ("stream", "backbone", "validation")
"""Of an experiment, what a method does not change."""


def _counts(like: FinishedRun | None, tasks: int) -> tuple[int, ...]:
    if like is None:
        return (1,) * tasks  # nothing that is weighted by them is shown
    return tuple(int(task["test"]) for task in like.values["tasks"])


def _matrices(run: ForeignMatrix, counts: Sequence[int]) -> Matrices:
    tasks = len(run.tasks)
    if len(counts) != tasks:
        raise ConfigError(
            "--tests names the test samples of each task",
            got=f"{len(counts)} for {tasks} tasks",
        )
    if min(counts) < 1:
        raise ConfigError("a task has one test sample at least", got=min(counts))
    cells = _table(run.cells)
    learnt = np.tri(tasks, dtype=bool)
    whole = run.is_whole and tasks > 1
    seen = np.where(learnt & (not whole), cells, np.nan)
    union = cells if whole else np.full((tasks, tasks), np.nan)
    # After the last task both label spaces are the same.
    seen[-1] = union[-1] = cells[-1]
    zero_shot = np.full(tasks, np.nan) if run.zero_shot is None else _table([run.zero_shot])[0]
    no_union = None if whole or tasks == 1 else NO_EARLIER
    return Matrices(seen, union, zero_shot, np.asarray(counts), no_union, NO_ZERO_SHOT)


def _table(rows: Sequence[Sequence[Value]]) -> Table:
    return np.asarray([[math.nan if v is None else v for v in row] for row in rows], np.float64)


def _plain(table: Table) -> list[Any]:
    if table.ndim > 1:
        return [_plain(row) for row in table]
    return [None if math.isnan(value) else value for value in table.tolist()]


def _metrics(m: Matrices, *, counted: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Every metric that a matrix allows, and why the others are null."""
    found = {name: getattr(d, name)(m) for name in _OF_MATRICES}
    values = {name: metric.value for name, metric in found.items()}
    why = {name: metric.why for name, metric in found.items() if metric.why}
    uncounted = () if counted else tuple(name for name in _POOLED if values[name] is not None)
    for names, reason in ((uncounted, NO_COUNTS), (_OF_SAMPLES, NO_SAMPLES)):
        values |= dict.fromkeys(names)
        why |= dict.fromkeys(names, reason)
    return values, why
