"""Results made up for tests of the report: matrices first, metrics from their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np

from raycl.metrics import definitions as d
from raycl.metrics.matrices import Matrices

METRICS = (
    "stage_pooled", "stage_task_mean", "last_pooled", "last_task_mean", "avg_inc_pooled",
    "forgetting", "forgetting_union", "bwt", "transfer", "average", "last_union",
)  # fmt: skip
NO_RULE = "the method has no rule for classes it has not learnt"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(2)</script>",
    "'; alert(3); //",
    "a\x00b\u202ec & <b>",
    "</title></style><svg onload=alert(4)>",
    "$\\frac{1}{0}$ 100% _x^2 #1 ~ {}",
    "",
)


def result(
    method: str = "slda",
    *,
    seed: int = 0,
    tasks: int = 4,
    per_task: int = 3,
    label: str | None = None,
    names: list[str] | None = None,
    unseen: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """A whole result, as `raycl run --json` prints it."""
    made = _matrices(method, seed, tasks, unseen=unseen)
    metrics = {name: getattr(d, name)(made) for name in METRICS}
    classes = tasks * per_task
    return {
        "key": f"result/{label or method}-made-seed{seed}/{abs(hash((label, method, seed))):032x}",
        "method": method,
        "label": label or method,
        "stream": "made",
        "stream_label": f"made, {tasks} tasks",
        "setting": "-".join(
            [label or method, str(tasks), *(str(changes.get(k)) for k in ("protocol", "backbone"))]
        ),
        "revisions": [1, 1],
        "backbone": "given",
        "seeds": dict.fromkeys(("order", "shot", "val", "init"), seed),
        "protocol": "class-incremental",
        "tasks": [
            {"classes": list(range(t * per_task, (t + 1) * per_task)), "train": 30, "test": 100}
            for t in range(tasks)
        ],
        "class_names": names or [f"class {c}" for c in range(classes)],
        "warnings": [],
        "experiment": {"stream": {"kind": "made", "order_seed": seed}, "method": {"kind": method}},
        "contents": ["0" * 64],
        "versions": {"raycl": "0", "torch": "2"},
        "device": "cpu",
        "r_seen": _plain(made.seen),
        "r_union": _plain(made.union),
        "zero_shot": _plain(made.zero_shot),
        "metrics": {name: metric.value for name, metric in metrics.items()},
        "why_null": {name: metric.why for name, metric in metrics.items() if metric.why},
        "state_mib": 0.0 if method == "zero_shot" else 0.5 + len(label or method),
        "seconds": {"learn": 1.5, "evaluate": 0.25},
        "trainable_parameters": 0,
        **changes,
    }


def _matrices(method: str, seed: int, tasks: int, *, unseen: bool) -> Matrices:
    generator = np.random.default_rng([seed, tasks, *method.encode()])
    union = generator.uniform(30, 95, (tasks, tasks))
    zero_shot = np.random.default_rng([seed, tasks]).uniform(40, 70, tasks)
    if method == "zero_shot":
        union[:] = zero_shot
    learnt = np.tri(tasks, dtype=bool)
    seen = np.where(learnt, union + generator.uniform(0, 5, union.shape), np.nan)
    seen[-1] = union[-1]
    if not unseen:
        union = np.where(learnt, seen, np.nan)
    counts = np.full(tasks, 100)
    return Matrices(seen, union, zero_shot, counts, None if unseen else NO_RULE)


def _plain(table: np.ndarray) -> list[Any]:
    if table.ndim > 1:
        return [_plain(row) for row in table]
    return [None if np.isnan(value) else float(value) for value in table]


def several(
    methods: int, seeds: int, tasks: int, per_task: int = 3, **changes: Any
) -> list[dict[str, Any]]:
    """So many settings, the frozen model among them, each with so many seeds."""
    names = ["zero_shot", *(f"method_{m}(rank={m})" for m in range(1, methods))]
    return [
        result(
            "zero_shot" if name == "zero_shot" else f"m{m}",
            label=name, seed=seed, tasks=tasks, per_task=per_task, unseen=m % 3 != 1, **changes,
        )
        for m, name in enumerate(names)
        for seed in range(seeds)
    ]  # fmt: skip


def latents(names: list[str], per_task: int = 3) -> list[dict[str, Any]]:
    """What a store tells of the generators of these classes."""
    random = np.random.default_rng(len(names))
    return [
        {
            "name": name,
            "task": c // per_task,
            "vectors": 60,
            "dispersion": 0.98,
            "real": random.normal(size=(48, 2)).tolist(),
            "sampled": (0.8 * random.normal(size=(64, 2))).tolist(),
            "share": [0.31, 0.2],
        }
        for c, name in enumerate(names)
    ]
