"""What a run is worth after a task, as if its stream ended there; and what it has cost.

Guarantees: after the last task the values are those of the result; a metric that needs more
tasks than there are is null, never a number. Nothing here looks at a task that is to come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raycl.config.experiment import Experiment
from raycl.engine.evaluating import from_table
from raycl.engine.identity import RunIdentity
from raycl.metrics.evaluation import evaluate
from raycl.metrics.matrices import NO_RULE
from raycl.metrics.predictions import StagePredictions
from raycl.observe.events import TaskMeasured
from raycl.store.store import Store

MIB = 2**20


def measured(
    index: int,
    tasks: Sequence[Sequence[int]],
    stages: Sequence[StagePredictions],
    history: Sequence[Mapping[str, Any]],
    scores_unseen: bool,
    missing_text: int,
) -> TaskMeasured:
    """The scalar metrics over the tasks so far, among their tests alone, and the costs."""
    values = cost_values(costs(history))
    here = [_of_tasks(stage, index) for stage in stages]
    if len(here[0].sample):  # tasks without a single test have no metrics
        # Classes to come may be predicted, though none is tested: they stand with the last.
        to_come = [c for task in tasks[index + 1 :] for c in task]
        known = [*tasks[:index], [*tasks[index], *to_come]]
        found = evaluate(here, known, scores_unseen=scores_unseen, missing_text=missing_text)
        metrics = {name: metric.value for name, metric in found.values.items()}
        values |= scalars(metrics)
    return TaskMeasured(index, len(tasks), values)


def measured_again(
    store: Store, experiment: Experiment, result: Mapping[str, Any]
) -> list[TaskMeasured]:
    """The same of a run that was found finished, from what it left in the store; what was
    removed there is left out."""
    identity = RunIdentity.of(experiment)
    missing = int(result["missing_text"])
    tasks = [task["classes"] for task in result["tasks"]]
    scores_unseen = NO_RULE not in (result.get("why_null") or {}).values()
    found = None if missing else store.get(identity.zero_shot)
    stages = [] if found is None else [from_table(found["predictions.parquet"])]
    history: list[Mapping[str, Any]] = []
    told = []
    for index in range(len(tasks)):
        found = store.get(identity.predictions(index))
        if found is None:
            break
        stages.append(from_table(found["predictions.parquet"]))
        history.append(found["notes.json"])
        told.append(measured(index, tasks, stages, history, scores_unseen, missing))
    return told


def _of_tasks(stage: StagePredictions, last: int) -> StagePredictions:
    known = stage.task <= last
    if known.all():
        return stage
    return StagePredictions.from_columns(
        {name: values[known] for name, values in stage.to_columns().items()}
    )


def costs(history: Sequence[Mapping[str, Any]], embedding: float = 0.0) -> dict[str, Any]:
    """Seconds by stage, what is kept, what was trained: from the notes of the tasks so far."""
    seconds: dict[str, float] = {"embed": embedding} if embedding else {}
    for notes in history:
        for stage, spent in notes["seconds"].items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    return {
        "state_mib": history[-1]["state_bytes"] / MIB,
        "trainable_parameters": max(notes["trainable_parameters"] for notes in history),
        "seconds": seconds,
    }


def cost_values(found: Mapping[str, Any]) -> dict[str, float | None]:
    """The costs of a result as numbers; embedding is shared, so it is not among the seconds."""
    seconds = [spent for stage, spent in found["seconds"].items() if stage != "embed"]
    return {
        "state_mib": float(found["state_mib"]),
        "trainable_parameters": float(found["trainable_parameters"]),
        "seconds": float(sum(seconds)),
    }


def scalars(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics that are one number, or undefined."""
    one = {name: v for name, v in metrics.items() if not name.startswith("stage_")}
    return {name: v for name, v in one.items() if v is None or isinstance(v, int | float)}
