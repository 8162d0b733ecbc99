"""How a sweep stands: the best sample, the Pareto front, counts, what the store saved."""

from __future__ import annotations

from collections import Counter
from typing import Any

from raycl.search.records import Records, Sample
from raycl.search.rungs import front_numbers


def complete_samples(records: Records) -> list[Sample]:
    """Those with a value for every objective."""
    metrics = [goal.metric for goal in records.goals]
    done = (sample for sample in records.samples if sample.state == "complete")
    return [s for s in done if all(s.value(metric) is not None for metric in metrics)]


def feasible(records: Records, sample: Sample) -> bool:
    """Whether it keeps to every constraint."""
    return all(one.excess(sample.value(one.metric)) <= 0 for one in records.space.constraints)


def gains(records: Records, sample: Sample) -> tuple[float, ...]:
    """Its objectives, turned so that more is better."""
    values = [(goal, sample.value(goal.metric)) for goal in records.goals]
    return tuple(goal.gain(value) for goal, value in values if value is not None)


def ordered(records: Records) -> list[Sample]:
    """Complete samples, the best by the first objective first; those that break a constraint
    last."""
    return sorted(
        complete_samples(records),
        key=lambda s: (not feasible(records, s), *(-gain for gain in gains(records, s)), s.number),
    )


def best_sample(records: Records) -> Sample | None:
    """The best by the first objective, of those that keep to the constraints."""
    found = [sample for sample in ordered(records) if feasible(records, sample)]
    return found[0] if found else None


def pareto(records: Records) -> list[Sample]:
    """The feasible samples that no other dominates, by the first objective."""
    found = [sample for sample in ordered(records) if feasible(records, sample)]
    fronts = front_numbers([gains(records, sample) for sample in found])
    return [sample for sample, front in zip(found, fronts, strict=True) if front == 0]


def counted(records: Records, what: str) -> dict[str, int]:
    """What all trials computed, or reused, by kind."""
    total: Counter[str] = Counter()
    for trial in records.trials:
        total.update(getattr(trial, what))
    return dict(sorted(total.items()))


def failed_share(records: Records) -> float:
    """Of the trials that came to an end."""
    over = [t for t in records.trials if t.over and t.state != "skipped"]
    return sum(trial.state == "failed" for trial in over) / len(over) if over else 0.0


def summary(records: Records, sweep: str, seconds: float) -> dict[str, Any]:
    """What `raycl sweep --json` prints."""
    best = best_sample(records)
    states = Counter(trial.state for trial in records.trials)
    spent = {n: sum(t.spent.get(n, 0.0) for t in records.trials) for n in ("wall", "saved")}
    return {
        "sweep": sweep,
        "trials": len(records.trials),
        "samples": len(records.samples),
        "states": dict(sorted(states.items())),
        "task_steps": sum(len(trial.reports) for trial in records.trials),
        "best": None if best is None else sample_facts(records, best),
        "pareto": [sample_facts(records, s) for s in pareto(records)]
        if len(records.goals) > 1
        else [],
        "test": {str(seed): result for seed, result in records.tested.items()},
        "computed": counted(records, "computed"),
        "reused": counted(records, "reused"),
        "trial_seconds": spent["wall"],
        "seconds_saved": spent["saved"],
        "failed": {t.name: t.why for t in records.trials if t.state == "failed"},
        "seconds": seconds,
    }


def sample_facts(records: Records, sample: Sample) -> dict[str, Any]:
    """One sample: what it was, what it is worth."""
    metrics = [objective.metric for objective in records.space.objectives]
    return {
        "sample": sample.number,
        "params": sample.params,
        "values": {metric: sample.value(metric) for metric in metrics},
        "keys": [trial.key for trial in sample.trials],
    }
