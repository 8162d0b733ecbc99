"""From a space's file to a checked `Space`, and from a sample of it to an experiment.

Guarantees: every dotted path and every kind of value of a checked space was given to the
experiment's own types, under the conditions in which it would be used; what does not fit
is a `ConfigError` that names the axis, the value and the nearest name that exists. A grid
file (stream or streams, methods, seeds) is a space whose axes are the stream and the method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from raycl.config.axes import allowed
from raycl.config.experiment import Experiment
from raycl.config.grid import Grid
from raycl.config.loading import check, load, merge, read_file, suggest
from raycl.config.space import CMAESSampler, GridSampler, Space, TaskRungs
from raycl.config.spec import Json
from raycl.errors import ConfigError

LARGEST_GRID = 100_000
_NOT_AN_OPTION = {
    "seed": "list the seeds under `seeds`",
    "execution": "where a sweep runs is said by the command: --pool, --workers, --store",
}


def read_space(path: Path) -> Space:
    """The checked space of a file, named as the file is unless it says otherwise."""
    space = space_of(read_file(path), path.stem)
    check_space(space)
    return space


def space_of(tree: Mapping[str, Any], name: str) -> Space:
    """The space in a mapping: one written as such, or a grid of methods."""
    if "base" not in tree and "methods" in tree:
        space = _of_grid(check(Grid, tree))
    else:
        space = check(Space, {k: v for k, v in tree.items() if k != "$schema"})
    return space.model_copy(update={"name": space.name or name})


def _of_grid(grid: Grid) -> Space:
    dumped = grid.model_dump(mode="json", exclude_unset=True)
    base = {name: dumped[name] for name in ("stream", "backbone", "validation") if name in dumped}
    streams = {"stream": {"choice": dumped["streams"]}} if grid.streams else {}
    axes = {**streams, "method": {"choice": dumped["methods"]}}
    sampler = {"kind": "grid"}
    whole = {"base": base, "axes": axes, "seeds": grid.seeds, "sampler": sampler}
    return check(Space, {**whole, "judge": "test", "failures": 0.0})


def check_space(space: Space) -> None:
    """Raises a `ConfigError` for the first thing that cannot be meant."""
    _check_paths(space)
    _check_conditions(space)
    _check_methods(space)
    # Without a method and a stream there is no experiment to try a value in.
    needed = [part for part in ("method", "stream") if part not in space.base]
    above = {path: axis for path, axis in space.axes.items() if path in needed}
    for path, axis in space.axes.items():
        above[path] = axis
        # With those above it only, so that a fault is told of the axis that has it.
        part = space.model_copy(update={"axes": dict(above)})
        for value in axis.tried():
            _try(part, path, {**dict(_leading_to(part, path)), path: value})
    if not space.axes:
        experiment_of(space, {}, space.seeds[0])


def _check_paths(space: Space) -> None:
    for path in space.axes:
        first, _, _ = path.partition(".")
        if first in _NOT_AN_OPTION:
            raise ConfigError(f"{path} cannot be an axis", do=_NOT_AN_OPTION[first])
        if not all(path.split(".")):
            raise ConfigError("an axis is a dotted path", got=repr(path), do="e.g. method.align.lr")
        for other in space.axes:
            if other.startswith(f"{path}.") and space.axes[path].domain != "choice":
                raise ConfigError(f"{path} holds {other}, and both are axes", do="leave one out")
    for name in _NOT_AN_OPTION:
        if name in space.base:
            raise ConfigError(f"base.{name} cannot be set in a space", do=_NOT_AN_OPTION[name])


def _check_conditions(space: Space) -> None:
    earlier: list[str] = []
    for path, axis in space.axes.items():
        for other, condition in axis.when.items():
            if other not in earlier:
                raise ConfigError(
                    f"axes.{path}.when names no axis above it",
                    got=other,
                    do=suggest(other, earlier),
                )
            missing = [one for one in allowed(condition) if not space.axes[other].has(one)]
            if missing or not allowed(condition):
                raise ConfigError(
                    f"axes.{path}.when can never be met: {other} is never that",
                    got=repr(condition),
                    do=f"use one of {', '.join(map(repr, space.axes[other].tried()))}",
                )
        earlier.append(path)


def _check_methods(space: Space) -> None:
    """That sampler and scheduler can do what is asked of them."""
    sampler = space.chosen_sampler
    _check_size(space)
    if isinstance(sampler, GridSampler) and not space.is_discrete:
        ranges = [path for path, axis in space.searched.items() if axis.domain != "choice"]
        raise ConfigError(
            "a grid needs choices", got=", ".join(ranges), do="write `choice`, or another sampler"
        )
    if isinstance(sampler, CMAESSampler):
        bad = [p for p, a in space.searched.items() if a.domain == "choice" or a.when]
        if bad or len(space.goals) > 1 or not space.searched:
            raise ConfigError(
                "cmaes takes one objective, and numbers without conditions only",
                got=", ".join(bad) or f"{len(space.goals)} objectives",
                do="use tpe or nsga2",
            )
    if isinstance(space.scheduler, TaskRungs) and space.tasks is not None:
        late = [rung for rung in space.scheduler.rungs or () if rung >= space.tasks]
        if late:
            raise ConfigError(
                "no rung may lie at or after the last task",
                got=f"rung {late[0]} of {space.tasks} tasks",
                do="leave it out, or raise tasks",
            )


def _check_size(space: Space) -> None:
    """A grid is gone through to be counted, so its size is looked at first."""
    found = prod(len(axis.options) for axis in space.searched.values()) if space.is_discrete else 0
    if isinstance(space.chosen_sampler, GridSampler) and found > LARGEST_GRID:
        raise ConfigError(
            "a grid of so many combinations is never finished",
            got=f"{found:,}, and {LARGEST_GRID:,} at most",
            do="leave choices out, or write sampler: {kind: tpe}",
        )


def _leading_to(space: Space, path: str) -> Iterator[tuple[str, Any]]:
    """Values of other axes under which this one is asked for."""
    wanted: dict[str, Any] = {}
    todo = [path]
    while todo:
        for other, condition in space.axes[todo.pop()].when.items():
            wanted.setdefault(other, allowed(condition)[0])
            todo.append(other)
    chosen: dict[str, Any] = {}
    for name, axis in space.axes.items():
        if name == path:
            continue
        if space.is_active(name, chosen):
            chosen[name] = wanted.get(name, axis.tried()[0])
            yield name, chosen[name]


def _try(space: Space, path: str, chosen: Mapping[str, Any]) -> None:
    active = {name: v for name, v in chosen.items() if space.is_active(name, chosen)}
    try:
        experiment_of(space, active, space.seeds[0])
    except ConfigError as error:
        raise ConfigError(
            f"axes.{path}, tried with {chosen[path]!r}: {error.what}", got=error.got, do=error.do
        ) from None


def experiment_of(
    space: Space, params: Mapping[str, Any], seed: int, *, on_test: bool | None = None
) -> Experiment:
    """The experiment of a sample: the base, its constants, its chosen values, a seed."""
    on_test = space.on_test if on_test is None else on_test
    return load([tree_of(space, params), _judged(on_test), {"seed": seed}]).experiment


def tree_of(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a mapping for a config file, but for seed and judge."""
    constants = {
        path: axis.constant
        for path, axis in space.axes.items()
        if axis.domain == "constant" and space.is_active(path, params)
    }
    # In the order of the axes: a kind comes before its options.
    values = {path: v for path in space.axes for v in _given(path, constants, params)}
    return merge([space.base, *(_nested(path, value) for path, value in values.items())])


def _given(path: str, *sources: Mapping[str, Any]) -> Iterator[Any]:
    yield from (source[path] for source in sources if path in source)


def _nested(path: str, value: Any) -> dict[str, Any]:
    tree: Any = value
    for name in reversed(path.split(".")):
        tree = {name: tree}
    return dict(tree)


def _judged(on_test: bool) -> dict[str, Any]:
    return {} if on_test else {"validation": {"judge": "held_out"}}


FREE = ("name", "about", "samples", "tasks", "resources", "concurrent", "failures")
"""What may change while a sweep goes on: it moves no value of a finished trial."""


def meaning(space: Space) -> dict[str, Json]:
    """All of a space that must stay the same while a sweep goes on."""
    dumped = space.model_dump(mode="json", by_alias=True)
    return {name: value for name, value in dumped.items() if name not in FREE}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Lines that say where two meanings differ."""
    for part in [*old, *(key for key in new if key not in old)]:
        path = f"{name}.{part}" if name else str(part)
        before, after = old.get(part), new.get(part)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, path)
        elif before != after:
            yield f"{path}: was {_shown(before, part in old)}, is {_shown(after, part in new)}"


def _shown(value: Any, there: bool) -> str:
    return repr(value) if there else "not there"


def schema() -> dict[str, Any]:
    """The JSON schema of a space's file, for editors."""
    found = Space.model_json_schema(by_alias=True)
    axis = found["properties"]["axes"]["additionalProperties"]
    bare = [{"type": kind} for kind in ("number", "string", "boolean", "null", "array")]
    found["properties"]["axes"]["additionalProperties"] = {"anyOf": [axis, *bare]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
