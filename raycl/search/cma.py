"""CMA-ES by replay: whole generations of finished samples are told to a fresh optimiser.

So its state needs no storing: it is what the samples say. A sample that failed or was pruned
is told as worse than all others of its generation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from raycl.config.axes import Axis
from raycl.config.seeds import seed_for
from raycl.config.space import CMAESSampler, Space
from raycl.search.records import Sample

_SEED_SPAN = 2**32


def suggest_by_cma(space: Space, spec: CMAESSampler, samples: Sequence[Sample]) -> dict[str, Any]:
    """The values of the next sample."""
    import numpy as np
    from cmaes import CMA

    axes = space.searched
    width, seed = len(axes), seed_for(space.sampler_seed, "cmaes", len(samples)) % _SEED_SPAN
    # CMA needs two dimensions: one that nothing reads stands beside a lone axis.
    dimensions = max(width, 2)
    optimiser = CMA(
        mean=np.full(dimensions, 0.5),
        sigma=spec.sigma,
        bounds=np.tile([0.0, 1.0], (dimensions, 1)),
        seed=seed_for(space.sampler_seed, "cmaes start") % _SEED_SPAN,
    )
    size = optimiser.population_size
    finished = [sample for sample in samples if sample.state != "running"]
    for first in range(0, len(finished) - size + 1, size):
        generation = finished[first : first + size]
        optimiser.tell(list(zip(_places(axes, generation, dimensions), _losses(space, generation),
                                strict=True)))  # fmt: skip
    optimiser.reseed_rng(seed)
    place = optimiser.ask()
    return {path: _value(axis, float(place[i])) for i, (path, axis) in enumerate(axes.items())}


def _losses(space: Space, generation: Sequence[Sample]) -> list[float]:
    goal = space.goals[0]
    found = [_loss(space, sample) for sample in generation]
    known = [loss for loss in found if loss is not None]
    worst = max(known, default=0.0)
    beyond = worst + max(worst - min(known, default=0.0), 1.0)
    assert goal.constraint is None
    return [beyond if loss is None else loss for loss in found]


def _loss(space: Space, sample: Sample) -> float | None:
    goal = space.goals[0]
    value = sample.value(goal.metric) if sample.state == "complete" else None
    bad = any(one.excess(sample.value(one.metric)) > 0 for one in space.constraints)
    return None if value is None or bad else -goal.gain(value)


def _places(axes: dict[str, Axis], generation: Sequence[Sample], dimensions: int) -> list[Any]:
    import numpy as np

    rows = []
    for sample in generation:
        row = [_place(axis, sample.params[path]) for path, axis in axes.items()]
        rows.append(np.array(row + [0.5] * (dimensions - len(row))))
    return rows


def _ends(axis: Axis) -> tuple[float, float]:
    low, high = axis.ends
    if axis.domain == "int":  # each whole number has the same room
        low, high = low - 0.5, high + 0.5
    return (math.log(low), math.log(high)) if axis.logarithmic else (low, high)


def _place(axis: Axis, value: float) -> float:
    low, high = _ends(axis)
    number = math.log(value) if axis.logarithmic else value
    return min(1.0, max(0.0, (number - low) / (high - low)))


def _value(axis: Axis, place: float) -> float | int:
    low, high = _ends(axis)
    number = low + place * (high - low)
    number = math.exp(number) if axis.logarithmic else number
    first, last = axis.ends
    number = min(max(number, first), last)
    return min(max(round(number), int(first)), int(last)) if axis.domain == "int" else number
