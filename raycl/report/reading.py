"""Finds finished runs in a store and reads what they left: results and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raycl.engine.evaluating import from_table
from raycl.errors import ConfigError, DataError, StoreError
from raycl.metrics.predictions import ZERO_SHOT_STAGE, StagePredictions
from raycl.store.artefact import Record
from raycl.store.store import Store

SHORTEST = 4
"""Letters of a digest that a user must give at least."""


@dataclass(frozen=True)
class FinishedRun:
    """A stored result and the record that names what it needs."""

    record: Record
    values: dict[str, Any]

    @property
    def tasks(self) -> list[list[int]]:
        """Class ids of each task."""
        return [task["classes"] for task in self.values["tasks"]]


def finished_runs(store: Store, references: Sequence[str] = ()) -> list[FinishedRun]:
    """The runs that the references name, or all of the store, oldest first."""
    records = sorted(store.records("result"), key=lambda record: record.created)
    if references:
        records = [named(text, records, "raycl store ls result") for text in references]
    return [_read(store, record) for record in records]


def named(reference: str, records: Sequence[Record], listing: str) -> Record:
    """The record of a whole key, or of the only digest that begins like this."""
    whole = [record for record in records if record.key == reference]
    if whole:
        return whole[0]
    if "/" in reference or len(reference) < SHORTEST:
        found = []
    else:
        found = [r for r in records if r.key.rsplit("/", 1)[-1].startswith(reference)]
    if len(found) == 1:
        return found[0]
    raise ConfigError(
        "several keys begin like this" if found else "nothing is stored under this key",
        got=reference,
        do=f"give a whole key, or {SHORTEST} or more letters of its digest: `{listing}` shows them",
    )


def _read(store: Store, record: Record) -> FinishedRun:
    return FinishedRun(record, store.read(record, only=("result.json",))["result.json"])


def stages_of(store: Store, run: FinishedRun) -> list[StagePredictions]:
    """The predictions after each task of a run, in order."""
    return [stage for stage in evidence_of(store, run) if stage.stage != ZERO_SHOT_STAGE]


def evidence_of(store: Store, run: FinishedRun) -> list[StagePredictions]:
    """All stored predictions of a run in order, zero-shot's first where there are any."""
    if run.values.get("imported"):
        raise DataError(
            "this result was imported as a matrix, and has no predictions",
            got=str(run.values["label"]),
            do="`raycl report` shows it beside others; runs of ours can be compared and judged",
        )
    stages = []
    for key in run.record.needs:
        if not key.startswith("predictions/"):
            continue
        record = store.record(key)
        if record is None:
            raise StoreError(
                "predictions that this run needs are missing",
                got=key,
                do=f"`raycl store discard {run.record.key}`, then run it again",
            )
        payloads = store.read(record, only=("predictions.parquet",))
        stages.append(from_table(payloads["predictions.parquet"]))
    return sorted(stages, key=lambda stage: stage.stage)


def zero_shot_twin(runs: Sequence[FinishedRun], run: FinishedRun) -> FinishedRun | None:
    """The newest zero_shot run on the same data, tasks and backbone."""
    same = ("contents", "tasks", "class_names", "backbone", "protocol")
    wanted = [run.values.get(name) for name in same]
    twins = [
        other
        for other in runs
        if other.values["method"] == "zero_shot"
        and [other.values.get(name) for name in same] == wanted
    ]
    return twins[-1] if twins else None
