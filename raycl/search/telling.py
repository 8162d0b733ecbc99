"""A sweep as plain data: what a page draws, a file takes along and a terminal shows."""

from __future__ import annotations

import json
import math
import shlex
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from raycl.config.space_files import tree_of
from raycl.search.ledger import Ledger
from raycl.search.records import Records, Sample, Trial
from raycl.search.sampling import study_of
from raycl.search.standings import (
    best_sample,
    complete_samples,
    feasible,
    ordered,
    pareto,
    summary,
)


def told(ledger: Ledger) -> dict[str, Any]:
    """All that is known of a sweep."""
    records, space = ledger.records, ledger.space
    best = best_sample(records)
    metrics = list(dict.fromkeys([*(o.metric for o in space.objectives), "last_pooled",
                                  "state_mib", "seconds"]))  # fmt: skip
    return {
        **summary(records, ledger.entry.id, 0.0),
        "about": space.about,
        "objectives": [
            {"metric": o.metric, "maximises": o.maximises, "constraint": o.constraint}
            for o in space.objectives
        ],
        "on_test": space.on_test,
        "seeds": list(space.seeds),
        "sampler": getattr(space.chosen_sampler, "kind", ""),
        "scheduler": space.scheduler.kind,
        "axes": [
            {
                "path": path,
                "logarithmic": axis.logarithmic,
                "options": list(axis.options) if axis.domain == "choice" else None,
                "ends": None if axis.domain == "choice" else list(axis.ends),
            }
            for path, axis in space.searched.items()
        ],
        "all": [_sample(records, sample, metrics) for sample in records.samples],
        "order": [sample.number for sample in ordered(records)],
        "front": [sample.number for sample in pareto(records)],
        "best_sample": None if best is None else best.number,
        "importance": importance(records),
        "space": space.model_dump(mode="json", by_alias=True),
    }


def _sample(records: Records, sample: Sample, metrics: list[str]) -> dict[str, Any]:
    goal = records.space.goals[0].metric
    return {
        "number": sample.number,
        "state": sample.state,
        "params": sample.params,
        # Of one that was pruned none: accuracy on its few classes is no accuracy on all.
        "values": {
            metric: sample.value(metric) if sample.state == "complete" else None
            for metric in metrics
        },
        "feasible": sample.state == "complete" and feasible(records, sample),
        "curve": {str(done): value for done, value in sample.values_after(goal).items()},
        "trials": [_trial(records, sample, trial) for trial in sample.trials],
    }


def _trial(records: Records, sample: Sample, trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.name,
        "seed": trial.seed,
        "state": trial.state,
        "done": trial.done,
        "tasks": trial.tasks,
        "why": trial.why,
        "key": trial.key,
        "spent": trial.spent,
        "computed": trial.computed,
        "reused": trial.reused,
        "command": command(records, sample, trial.seed),
    }


def config(records: Records, sample: Sample, seed: int, *, on_test: bool) -> dict[str, Any]:
    """A sample as what `raycl run --config` takes."""
    tree = {**tree_of(records.space, sample.params), "seed": seed}
    if not on_test:
        tree["validation"] = {**tree.get("validation", {}), "judge": "held_out"}
    return tree


def command(records: Records, sample: Sample, seed: int) -> str:
    """The command that makes a trial again, or finds it."""
    on_test = records.space.on_test
    words = ["raycl", "run", "--seed", str(seed)]
    for path, value in _leaves(config(records, sample, seed, on_test=on_test)):
        if path != "seed":
            words += ["--set", f"{path}={json.dumps(value)}"]
    limit = records.limit
    return shlex.join([*words, *(["--stop-after", str(limit)] if limit else [])])


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield above + name, value


def importance(records: Records) -> dict[str, float]:
    """How much of the variance of the first objective each axis explains (Optuna's fANOVA);
    nothing where there is too little to tell, or nothing varies."""
    done = complete_samples(records)
    found = {value for s in done if (value := s.value(records.goals[0].metric)) is not None}
    if len(done) < 4 or len(found) < 2:
        return {}
    import optuna

    study = study_of(records.space, done)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shares = optuna.importance.get_param_importances(
                study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
                target=_first_value,
            )
        except (RuntimeError, ValueError):
            return {}
    return {path: share for path, share in shares.items() if math.isfinite(share)}


def _first_value(trial: Any) -> float:
    return float(trial.values[0])
