"""How many tasks a search learns before it has what plain random search ends with.

Expectation, written before measuring: halving after 2 of 5, or after 2 and 3 of 10 tasks, leaves
random search with 70 or 43 % of the tasks; what TPE adds depends on how sharp the optimum is; so
half of random search's tasks or fewer. Tune's stock ASHA stands beside it: it only stops, so a
trial that was stopped early among few never comes back.

Every side tries one trial at a time, on the same stream and class order, judged by the validation
split. A side has its value once a trial that learnt all tasks is at least as good as the best of
random search. Each side may learn as many tasks as random search did, so the one that stops trials
early tries more of them; one that never has the value by then counts as more than all. The seeds of
the samplers are the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from raycl import Execution, Space, sweep
from raycl.config.space_files import experiment_of, space_of
from raycl.search.conductor import Report
from raycl.search.ledger import open_ledger
from raycl.search.records import Sample
from raycl.search.sampling import suggest
from raycl.search.sweep import SweepOptions
from raycl.search.trial_run import Order, run_trial
from raycl.store.store import Store

GOAL = "last_pooled"
MORE = 3
"""Times as many samples as random search has, of which a race can learn the first tasks."""
SPACES: dict[str, dict[str, Any]] = {
    "digits": {
        "base": {
            "method": {
                "kind": "cgil",
                "generator": {"kind": "gaussian"},
                "prompt": {"kind": "residual"},
            },
            "stream": {"kind": "digits", "tasks": 5},
        },
        "axes": {
            "method.align.lr": {"loguniform": [1e-6, 1.0]},
            "method.align.epochs": {"choice": [2, 5, 10]},
            "method.align.weight_decay": {"loguniform": [1e-6, 10.0]},
            "method.per_class": {"choice": [16, 64]},
        },
    },
    "cars": {
        "base": {
            "method": {"kind": "rail", "hidden": 512},
            "stream": {
                "kind": "embeddings",
                "paths": ["$RAYCL_DATA/clip_vitb32/stanford_cars.npz"],
                "tasks": 10,
            },
        },
        "axes": {
            "method.ridge": {"loguniform": [1e-6, 1e3]},
            "method.weight": {"uniform": [0.01, 1.0]},
        },
    },
}  # fmt: skip


@dataclass(frozen=True)
class Steps:
    """The value of each finished trial, by how many tasks had been learnt by then."""

    reached: list[tuple[int, float]]
    spent: int

    def within(self, budget: int) -> Steps:
        """What was reached with so many tasks."""
        reached = [(steps, value) for steps, value in self.reached if steps <= budget]
        return Steps(reached, min(self.spent, budget))

    def until(self, value: float) -> int | None:
        """Tasks before a trial was at least this good."""
        return next((steps for steps, found in self.reached if found >= value - 1e-9), None)


def made_space(on: str, samples: int, repeat: int, **more: Any) -> Space:
    tree = {**SPACES[on], "samples": samples, "sampler_seed": repeat, **more}
    return space_of(tree, f"{on}-{repeat}-{samples}-{more['sampler']['kind']}")


def searched(space: Space, store: Path) -> Steps:
    """What `raycl sweep` does, one trial at a time."""
    sweep(space, Execution(store=str(store)), SweepOptions(test=False))
    assert space.name is not None
    ledger = open_ledger(Store.open(str(store)), space.name)
    steps, reached = 0, []
    for event in ledger.store.journal(f"sweep/{ledger.entry.id}").read():
        if event["event"] == "reported":
            steps += 1
        if event["event"] == "finished" and event["state"] == "complete":
            value = ledger.records.trial(event["trial"]).last[GOAL]
            reached.append((steps, float(value or 0.0)))
    return Steps(reached, steps)


def stopped_by_asha(space: Space, store: Path, budget: int) -> Steps:
    """Tune's own scheduler over random samples, with the tasks of plain random search."""
    from ray.tune.schedulers import ASHAScheduler

    asha = ASHAScheduler(
        time_attr="done", metric=GOAL, mode="max", max_t=100, grace_period=1, reduction_factor=2
    )
    steps, reached, samples = 0, [], []
    while steps < budget:
        number = len(samples)
        found = suggest(space, samples)
        assert found is not None
        samples.append(Sample(number, found[0], []))
        trial = SimpleNamespace(trial_id=str(number))
        asha.on_trial_add(None, trial)
        values: list[float] = []

        def report(told: Report, trial: Any = trial, values: list[float] = values) -> bool:
            nonlocal steps
            steps += 1
            values.append(float(told.values[GOAL] or 0.0))
            answer = asha.on_trial_result(None, trial, {"done": told.done, GOAL: values[-1]})
            return told.done == told.tasks or answer != asha.STOP

        experiment = experiment_of(space, found[0], 0).model_dump(mode="json")
        place = Execution(store=str(store)).model_dump(mode="json")
        if run_trial(Order(str(number), experiment, place, None, 0), report).state == "complete":
            reached.append((steps, values[-1]))
            asha.on_trial_complete(None, trial, {"done": len(values), GOAL: values[-1]})
    return Steps(reached, steps)


def repeat_once(on: str, samples: int, repeat: int, store: Path) -> dict[str, Any]:
    """The share of random search's tasks that each side needs."""
    plain = made_space(on, samples, repeat, sampler={"kind": "random"})
    random = searched(plain, store)
    target = max(value for _, value in random.reached)
    rungs = {"scheduler": {"kind": "task_rungs"}, "sampler": {"kind": "tpe", "startup": 6}}
    ours = searched(made_space(on, MORE * samples, repeat, **rungs), store).within(random.spent)
    asha = stopped_by_asha(plain, store, random.spent).within(random.spent)
    sides = {"random": random, "task_rungs_tpe": ours, "asha_random": asha}
    return {
        "target": target,
        "random_tasks": random.spent,
        **{name: side.until(target) for name, side in sides.items()},
        "spent": {name: side.spent for name, side in sides.items()},
        "best": {n: max((v for _, v in s.reached), default=None) for n, s in sides.items()},
    }


def summed_up(found: list[dict[str, Any]], side: str) -> dict[str, Any]:
    never = 2.0  # more than all
    shares = [(one[side] or never * one["random_tasks"]) / one["random_tasks"] for one in found]
    return {
        "median_share_of_random_tasks": round(statistics.median(shares), 3),
        "shares": [round(share, 3) if share < never else "never" for share in shares],
        "spent": [one["spent"][side] for one in found],
        "reached_in": f"{sum(one[side] is not None for one in found)} of {len(found)}",
        "best_minus_random": [round(one["best"][side] - one["target"], 2) for one in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--on", default="digits", choices=tuple(SPACES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--store", help="keeps what was computed; default: a temporary one")
    asked = parser.parse_args()
    repeats, samples = (1, 8) if asked.quick else (asked.repeats, asked.samples)
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(asked.store or temporary)
        found = [repeat_once(asked.on, samples, repeat, store) for repeat in range(repeats)]
    sides = {name: summed_up(found, name) for name in ("random", "task_rungs_tpe", "asha_random")}
    out = {
        "name": "sweep_search",
        "on": asked.on,
        "samples": samples,
        "repeats": repeats,
        "targets": [round(one["target"], 2) for one in found],
        **sides,
        "ratio": sides["task_rungs_tpe"]["median_share_of_random_tasks"],
        "machine": f"{os.cpu_count()} CPUs, Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
