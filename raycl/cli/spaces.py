"""`raycl spaces`: the search spaces that ship, one of them in full, and whether one holds."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.table import Table

from raycl.config.axes import Axis
from raycl.config.loading import read_file
from raycl.config.space import Objective, Space
from raycl.config.space_files import experiment_of, schema, space_of
from raycl.errors import RayclError
from raycl.observe.console import Console, say
from raycl.search.shipped_spaces import FOLDER, find_space, shipped_spaces
from raycl.shipped import folder


@click.group()
def spaces() -> None:
    """Search spaces: what ships, what one holds, whether a file of yours can be meant."""


@spaces.command("list")
def listing() -> None:
    """Every shipped space, with its axes and seeds."""
    table = Table("space", "what it is", "axes", "seeds", "samples")
    for name, path in shipped_spaces().items():
        space = space_of(read_file(path), name)
        below = path.parent.relative_to(folder(FOLDER)).as_posix()
        about = space.about.strip() or ("" if below == "." else f"({below})")
        axes = ", ".join(space.searched) or "none: a recipe"
        table.add_row(name, about, axes, str(len(space.seeds)), str(space.wanted_samples))
    Console().print(table, highlight=False)


@spaces.command()
@click.argument("space")
@click.option("--json", "as_json", is_flag=True, help="The space with its defaults written out.")
def show(space: str, as_json: bool) -> None:
    """What SPACE (a shipped name or a file) tries, judges and spends."""
    found = find_space(space)
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json", by_alias=True)))
        return
    console = Console()
    table = Table("axis", "domain", "asked for when")
    for path, axis in found.axes.items():
        when = ", ".join(f"{other} is {value}" for other, value in axis.when.items())
        table.add_row(path, domain_words(axis), when)
    for line in _facts(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(table if found.axes else "no axis: the seeds are all there is", highlight=False)


def domain_words(axis: Axis) -> str:
    """The domain as a reader would say it."""
    if axis.domain == "constant":
        return json.dumps(axis.constant)
    if axis.domain == "choice":
        return " | ".join(json.dumps(option) for option in axis.options)
    low, high = axis.ends
    kind = "whole numbers " if axis.domain == "int" else ""
    return f"{kind}{low:g} … {high:g}" + (", logarithmic" if axis.logarithmic else "")


def _facts(space: Space) -> list[str]:
    lines = [f"{space.name}: {' '.join(space.about.split())}" if space.about else str(space.name)]
    lines.append("judged by " + ("the test data" if space.on_test else "the validation split"))
    lines.append("objectives: " + "; ".join(map(_objective_words, space.objectives)))
    sampler = getattr(space.chosen_sampler, "kind", "")
    budget = f"{space.wanted_samples} samples × seeds {', '.join(map(str, space.seeds))}"
    tasks = "all tasks" if space.tasks is None else f"the first {space.tasks} tasks"
    return [*lines, f"{budget}, {tasks}; sampler {sampler}, scheduler {space.scheduler.kind}"]


def _objective_words(objective: Objective) -> str:
    way = "max" if objective.maximises else "min"
    if objective.constraint is None:
        return f"{way} {objective.metric}"
    sign = "≥" if objective.maximises else "≤"
    return f"{objective.metric} {sign} {objective.constraint:g}"


@spaces.command("check")
@click.argument("names", nargs=-1, metavar="[SPACE]…")
def checking(names: tuple[str, ...]) -> int:
    """Check every path and value of the SPACEs, or of all that ship."""
    worst = 0
    for name in names or tuple(shipped_spaces()):
        try:
            space = find_space(name)
            first: Any = next(iter(space.grid()), {}) if space.is_discrete else None
            if first is not None:
                experiment_of(space, first, space.seeds[0])
        except RayclError as error:
            if len(names) == 1:
                raise
            say(f"FAIL {name}: {error}", err=True)
            worst = max(worst, error.exit_code)
            continue
        axes, samples = len(space.searched), space.wanted_samples
        size = f"{axes} {'axis' if axes == 1 else 'axes'}, {samples} sample{'s' * (samples != 1)}"
        say(f"ok   {name}: {size}")
    return worst


@spaces.command("schema")
def print_schema() -> None:
    """The JSON schema of a space's file, for your editor."""
    click.echo(json.dumps(schema(), indent=1))
