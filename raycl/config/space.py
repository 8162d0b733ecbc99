"""`Space`: what a sweep tries, judges, spends, and how it chooses; as a file holds it.

Guarantees: a space that was built names only metrics and axes that exist; whether every
path and value fits the experiment's own types is said by `raycl.config.space_files`.
Light: no torch, no Ray, no Optuna.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from raycl.config.axes import Axis, meets
from raycl.config.spec import Json, Spec, canonical

HIGHER_IS_BETTER = (
    "last_pooled", "last_task_mean", "avg_inc_pooled", "avg_inc_task_mean", "last_macro", "bwt",
    "bwt_union", "fwt", "fwt_raw", "ci_transfer", "transfer", "average", "last_union",
    "transfer_over_zero_shot",
)  # fmt: skip
LOWER_IS_BETTER = (
    "forgetting", "forgetting_union", "ece_seen", "ece_unseen", "predicted_recent",
    "predicted_recent_fair", "state_mib", "seconds", "trainable_parameters",
)  # fmt: skip
METRICS = (*HIGHER_IS_BETTER, *LOWER_IS_BETTER)
"""Of docs/metrics.md, and what a run costs."""

DEFAULT_SAMPLES = 20


class Objective(Spec):
    """A metric to push one way, or, with a bound, one that must stay on its side of it."""

    metric: str
    direction: Literal["max", "min"] | None = None
    """Null: the better one of that metric."""
    constraint: float | None = None
    """The bound of a constraint: at least this for `max`, at most this for `min`."""

    @field_validator("metric")
    @classmethod
    def _exists(cls, metric: str) -> str:
        if metric not in METRICS:
            import difflib

            close = difflib.get_close_matches(metric, METRICS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"no metric is named {metric!r}; {hint}(known: {', '.join(METRICS)})")
        return metric

    @property
    def maximises(self) -> bool:
        if self.direction is None:
            return self.metric in HIGHER_IS_BETTER
        return self.direction == "max"

    def gain(self, value: float) -> float:
        """The value, turned so that more is better."""
        return value if self.maximises else -value

    def excess(self, value: float | None) -> float:
        """How far a value lies on the wrong side of the bound; 0 or less if it does not."""
        if self.constraint is None:
            return 0.0
        if value is None:
            return float("inf")
        return self.constraint - value if self.maximises else value - self.constraint


class RandomSampler(Spec):
    """Every sample by itself, from the domains."""

    kind: Literal["random"] = "random"


class GridSampler(Spec):
    """Every combination of the choices, once, in order."""

    kind: Literal["grid"] = "grid"


class TPESampler(Spec):
    """Tree-structured Parzen estimators; with several objectives, their multi-objective form."""

    kind: Literal["tpe"] = "tpe"
    startup: int = Field(10, ge=1)
    """Random samples before the first that is chosen."""


class NSGA2Sampler(Spec):
    """A genetic algorithm that sorts by non-domination."""

    kind: Literal["nsga2"] = "nsga2"
    population: int = Field(16, ge=2)


class CMAESSampler(Spec):
    """Covariance matrix adaptation, for one objective over numbers without conditions."""

    kind: Literal["cmaes"] = "cmaes"
    sigma: float = Field(0.25, gt=0, le=1)
    """The first step, as a share of each range."""


SamplerSpec = Annotated[
    RandomSampler | GridSampler | TPESampler | NSGA2Sampler | CMAESSampler,
    Field(discriminator="kind"),
]


class AllTasks(Spec):
    """Every trial learns every task."""

    kind: Literal["all"] = "all"


class TaskRungs(Spec):
    """Rungs are task indices: the best share of those that reached one goes on, at any time."""

    kind: Literal["task_rungs"] = "task_rungs"
    eta: float = Field(2.0, gt=1)
    """One in so many goes on."""
    rungs: tuple[int, ...] | None = None
    """After how many tasks trials are compared. Null: at a quarter, an eighth … of all tasks, but
    not after the first, by which nothing can have been forgotten; of short streams at a half."""

    @field_validator("rungs")
    @classmethod
    def _rise(cls, rungs: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if rungs is not None and (list(rungs) != sorted(set(rungs)) or min(rungs, default=0) < 1):
            raise ValueError("rungs are numbers of tasks, 1 or more, that rise")
        return rungs

    def at(self, tasks: int) -> tuple[int, ...]:
        """The rungs of trials with so many tasks, all below the last."""
        if self.rungs is not None:
            return tuple(rung for rung in self.rungs if rung < tasks)
        half = -(-tasks // 2)
        found, here = [], half
        while here > 2:
            here = -(-here // 2)
            if 2 * here < tasks:
                found.append(here)
        return tuple(reversed(found)) or ((half,) if half < tasks else ())


SchedulerSpec = Annotated[AllTasks | TaskRungs, Field(discriminator="kind")]


class TrialResources(Spec):
    """What one trial holds: the process of the engine, and workers of its own, if any."""

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)
    workers: int = Field(0, ge=0)
    """Ray workers that the trial's own pool may start, beside the trial."""
    worker_cpus: float = Field(1, ge=1)
    worker_gpus: float = Field(0, ge=0)


class Space(Spec):
    """A sweep as its file describes it."""

    name: str | None = None
    """What the sweep is called in the store; null: as the file is."""
    about: str = ""
    base: dict[str, JsonValue]
    """The experiment that the axes change: `method`, `stream` and whatever else it needs."""
    axes: dict[str, Axis] = Field(default_factory=dict)
    """Options by their dotted paths. Without any, the seeds are all there is: a recipe."""
    objectives: tuple[Objective, ...] = Field((Objective(metric="last_pooled"),), min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Each sample runs with each of them; its value is the mean."""
    judge: Literal["validation", "test"] | None = None
    """Null: the validation split of the training data; of a recipe and a grid of methods the
    test, since nothing is chosen."""
    samples: int | None = Field(None, ge=1)
    """Null: all of a grid, else 20."""
    tasks: int | None = Field(None, ge=1)
    """How many tasks of the stream a trial learns; null: all. May be raised later."""
    sampler: SamplerSpec | None = None
    """Null: a grid if every axis is a choice, else TPE."""
    sampler_seed: int = Field(0, ge=0)
    scheduler: SchedulerSpec = AllTasks()
    resources: TrialResources = TrialResources()
    concurrent: int | None = Field(None, ge=1)
    """Trials at a time; null: as many as the machine or the cluster holds."""
    failures: float = Field(0.5, ge=0, le=1)
    """The share of failed trials beyond which the command fails."""

    @model_validator(mode="before")
    @classmethod
    def _bare_values_are_constants(cls, values: Any) -> Any:
        axes = values.get("axes") if isinstance(values, Mapping) else None
        if not isinstance(axes, Mapping):
            return values
        spelt = {
            path: axis if isinstance(axis, Mapping | Axis) else {"constant": axis}
            for path, axis in axes.items()
        }
        return {**values, "axes": spelt}

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice")
        return seeds

    @field_validator("objectives")
    @classmethod
    def _one_is_to_be_reached(cls, found: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if all(one.constraint is not None for one in found):
            raise ValueError("one objective must be without a constraint: it is what is sought")
        if len({one.metric for one in found}) < len(found):
            raise ValueError("a metric is given twice")
        return found

    @property
    def goals(self) -> tuple[Objective, ...]:
        """The objectives that are no constraints."""
        return tuple(one for one in self.objectives if one.constraint is None)

    @property
    def constraints(self) -> tuple[Objective, ...]:
        return tuple(one for one in self.objectives if one.constraint is not None)

    @property
    def searched(self) -> dict[str, Axis]:
        """The axes that have more than one value."""
        return {path: axis for path, axis in self.axes.items() if axis.domain != "constant"}

    @property
    def is_discrete(self) -> bool:
        return all(axis.domain == "choice" for axis in self.searched.values())

    @property
    def chosen_sampler(self) -> Spec:
        """The sampler with its default resolved."""
        return self.sampler or (GridSampler() if self.is_discrete else TPESampler())

    @property
    def on_test(self) -> bool:
        """Whether trials are judged by the test data."""
        return self.judge == "test" or (self.judge is None and not self.searched)

    @property
    def wanted_samples(self) -> int:
        """How many configurations are tried."""
        if isinstance(self.chosen_sampler, GridSampler):
            whole = sum(1 for _ in self.grid())
            return min(self.samples or whole, whole)
        return self.samples or DEFAULT_SAMPLES

    def grid(self) -> Iterator[dict[str, Json]]:
        """Every combination of choices, without what its conditions leave out, each once."""
        names = list(self.searched)
        seen = set()
        for values in product(*(self.searched[name].options for name in names)):
            chosen = dict(zip(names, values, strict=True))
            active = {n: v for n, v in chosen.items() if self.is_active(n, chosen)}
            if canonical(active) not in seen:
                seen.add(canonical(active))
                yield active

    def is_active(self, path: str, chosen: Mapping[str, Any]) -> bool:
        """Whether an axis is asked for, after the values chosen so far."""
        for other, condition in self.axes[path].when.items():
            axis = self.axes[other]
            if not self.is_active(other, chosen):
                return False
            value = axis.constant if axis.domain == "constant" else chosen.get(other)
            if not meets(condition, value):
                return False
        return True
