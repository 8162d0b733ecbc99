"""The next configuration: a pure function of the space and of what its samples have shown.

Guarantees: the same records give the same configuration, whoever asks and however often the
driver died in between: the study is built anew in memory and the sampler is seeded by the
number of the sample. Samples under way are in it as such, pruned ones as pruned with what
they reported, failed ones as failed. Nothing of Optuna's is ever stored or unpickled.
"""

from __future__ import annotations

import itertools
import json
import logging
import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from raycl.config.axes import Axis
from raycl.config.seeds import seed_for
from raycl.config.space import (
    CMAESSampler,
    GridSampler,
    NSGA2Sampler,
    RandomSampler,
    Space,
    TPESampler,
)
from raycl.search.records import Sample

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

Suggestion = tuple[dict[str, Any], dict[str, Any]]
"""The chosen values, and what the sampler wants to find again."""

_SEED_SPAN = 2**32


def suggest(space: Space, samples: Sequence[Sample]) -> Suggestion | None:
    """The configuration of the next sample, or None if there is no other."""
    number = len(samples)
    match space.chosen_sampler:
        case GridSampler():
            params = next(itertools.islice(space.grid(), number, None), None)
            return None if params is None else (params, {})
        case CMAESSampler() as spec:
            from raycl.search.cma import suggest_by_cma

            return suggest_by_cma(space, spec, samples), {}
        case _:
            return _by_optuna(space, samples)


def _by_optuna(space: Space, samples: Sequence[Sample]) -> Suggestion:
    study = study_of(space, samples, _sampler(space, len(samples)))
    trial = study.ask()
    params: dict[str, Any] = {}
    for path, axis in space.searched.items():
        if space.is_active(path, params):
            params[path] = _value_of(axis, _suggested(trial, path, axis))
    stored = study._storage.get_trial_system_attrs(trial._trial_id)
    return params, {name: value for name, value in stored.items() if "generation" in name}


def _suggested(trial: optuna.Trial, path: str, axis: Axis) -> Any:
    match axis.domain:
        case "float":
            return trial.suggest_float(path, *axis.ends, log=axis.logarithmic)
        case "int":
            low, high = axis.ends
            return trial.suggest_int(path, int(low), int(high), log=axis.logarithmic)
        case _:
            words = [_word(axis, place) for place in range(len(axis.options))]
            return trial.suggest_categorical(path, words)


def distribution_of(axis: Axis) -> BaseDistribution:
    """The axis as Optuna knows it; choices by their place, since they may be anything."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    match axis.domain:
        case "float":
            return FloatDistribution(*axis.ends, log=axis.logarithmic)
        case "int":
            low, high = axis.ends
            return IntDistribution(int(low), int(high), log=axis.logarithmic)
        case _:
            return CategoricalDistribution([_word(axis, i) for i in range(len(axis.options))])


def _word(axis: Axis, place: int) -> bool | int | float | str | None:
    option = axis.options[place]
    plain = option is None or isinstance(option, bool | int | float | str)
    # 1 and 1.0 and true are equal to Optuna, and are not to us.
    alike = sum(option == other for other in axis.options) > 1
    return option if plain and not alike else json.dumps(option, sort_keys=True)


def _value_of(axis: Axis, suggested: Any) -> Any:
    if axis.domain != "choice":
        return suggested
    return next(o for i, o in enumerate(axis.options) if _same(_word(axis, i), suggested))


def _word_of(axis: Axis, value: Any) -> Any:
    if axis.domain != "choice":
        return value
    found = json.dumps(value, sort_keys=True)
    places = range(len(axis.options))
    return next(
        _word(axis, i) for i in places if json.dumps(axis.options[i], sort_keys=True) == found
    )


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def study_of(space: Space, samples: Sequence[Sample], sampler: BaseSampler | None = None) -> Study:
    """All samples as an Optuna study in memory."""
    import optuna

    quieten()
    way = optuna.study.StudyDirection
    directions = [way.MAXIMIZE if goal.maximises else way.MINIMIZE for goal in space.goals]
    study = optuna.create_study(directions=directions, sampler=sampler)
    for sample in samples:
        study.add_trial(frozen(space, sample))
    return study


def quieten() -> None:
    """Optuna tells of every trial on stderr, which belongs to our table."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)


def frozen(space: Space, sample: Sample) -> FrozenTrial:
    """A sample as Optuna's trial: told as what it is."""
    import optuna
    from optuna.trial import TrialState

    state, values = _told(space, sample)
    single = len(space.goals) == 1
    goal = space.goals[0].metric
    trial = optuna.trial.create_trial(
        state=TrialState[state],
        values=values,
        params={path: _word_of(space.axes[path], v) for path, v in sample.params.items()},
        distributions={path: distribution_of(space.axes[path]) for path in sample.params},
        # With several objectives Optuna compares no intermediate values.
        intermediate_values=sample.values_after(goal) if single and state != "FAIL" else {},
        constraints=_constraints(space, sample) if state in ("COMPLETE", "PRUNED") else {},
        system_attrs=dict(sample.attrs),
        user_attrs={"trials": [trial.name for trial in sample.trials]},
    )
    # Optuna takes the time at which it is told for that of the work.
    if times := [trial.heard_of for trial in sample.trials if trial.heard_of]:
        trial.datetime_start = datetime.fromtimestamp(min(first for first, _ in times))
        if trial.state.is_finished():
            trial.datetime_complete = datetime.fromtimestamp(max(last for _, last in times))
    return trial


def _told(space: Space, sample: Sample) -> tuple[str, list[float] | None]:
    match sample.state:
        case "running":
            return "RUNNING", None
        case "pruned":
            return "PRUNED", None
        case "failed":
            return "FAIL", None
    values = [sample.value(goal.metric) for goal in space.goals]
    numbers = [value for value in values if value is not None]
    return ("COMPLETE", numbers) if len(numbers) == len(values) else ("FAIL", None)


def _constraints(space: Space, sample: Sample) -> dict[str, float]:
    found = {one.metric: one.excess(sample.value(one.metric)) for one in space.constraints}
    return {name: min(excess, 1e9) for name, excess in found.items()}


def _sampler(space: Space, number: int) -> BaseSampler:
    import optuna

    quieten()
    seed = seed_for(space.sampler_seed, "sweep", number) % _SEED_SPAN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        match space.chosen_sampler:
            case RandomSampler():
                return optuna.samplers.RandomSampler(seed=seed)
            case TPESampler(startup=startup):
                # Axes together, group by group of those that conditions let appear together:
                # of rates and weights it is the combination that is good.
                return optuna.samplers.TPESampler(
                    seed=seed,
                    n_startup_trials=startup,
                    constant_liar=True,
                    multivariate=True,
                    group=True,
                )
            case NSGA2Sampler(population=population):
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
            case other:
                raise AssertionError(f"no sampler for {other}")
