"""`raycl sweep SPACE`: search it; the same command again continues."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

import click

from raycl.cli.options import add_place, add_sinks, flags_of_place
from raycl.config.execution import Execution
from raycl.config.loading import check
from raycl.config.space import Space
from raycl.config.space_files import check_space
from raycl.config.streams import parse_stream
from raycl.engine.run import default_store
from raycl.errors import ConfigError
from raycl.observe.console import Console
from raycl.search.shipped_spaces import find_space
from raycl.search.sweep import SweepOptions
from raycl.search.sweep import sweep as run_sweep


@click.command()
@click.argument("space")
@click.option("--samples", type=int, help="How many configurations; may grow later.")
@click.option("--seeds", help="Comma-separated, in place of the space's.")
@click.option("--stream", help="Another stream than the space's, as `raycl run` takes it.")
@click.option("--name", help="What the sweep is called in the store.")
@click.option("--concurrent", type=int, help="Trials at a time, at most.")
@click.option("--gpus", type=float, help="GPUs of a trial on Ray, as 1 or 0.5 [the space's].")
@click.option("--new", is_flag=True, help="Begin another of this name.")
@click.option("--extend-tasks", type=int, metavar="N", help="Let trials go on to N tasks.")
@click.option("--no-test", is_flag=True, help="Leave the best unmeasured on the test data.")
@add_place
@add_sinks
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def sweep(
    space: str,
    samples: int | None,
    seeds: str | None,
    stream: str | None,
    name: str | None,
    concurrent: int | None,
    gpus: float | None,
    new: bool,
    extend_tasks: int | None,
    no_test: bool,
    as_json: bool,
    **place: Any,
) -> None:
    """Search SPACE (a shipped name or a file) on Ray Tune.

    The same command again continues where it was stopped or killed, or answers from the store.
    """
    asked = {"samples": samples, "seeds": _seeds(seeds), "name": name, "concurrent": concurrent}
    found = asked_space(space, stream, gpus, **asked)
    flags = {"store": default_store(), "pool": "ray", **flags_of_place(**place)}
    options = SweepOptions(new=new, extend_tasks=extend_tasks, test=not no_test, quiet=False)
    answer = run_sweep(found, check(Execution, flags), options)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        show_answer(answer)


def asked_space(
    space: str, stream: str | None = None, gpus: float | None = None, **asked: Any
) -> Space:
    """The space of this name or file with what the command line says in place of its own."""
    found = _on(find_space(space), stream)
    changes = {option: value for option, value in asked.items() if value is not None}
    if gpus is not None:
        changes["resources"] = {**found.resources.model_dump(), "gpus": gpus}
    return _with(found, changes)


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() for word in words):
        raise ConfigError("--seeds takes whole numbers", got=text, do="e.g. --seeds 0,1,2")
    return [int(word) for word in words]


def _on(space: Space, stream: str | None) -> Space:
    """The space on another stream: a sweep of its own, named by both."""
    if stream is None:
        return space
    kind, _, places = stream.partition(":")
    last = PurePath(places).stem if places else kind
    base = {**space.base, "stream": parse_stream(stream)}
    changed = _with(space, {"base": base, "name": f"{space.name}-{last}"})
    check_space(changed)
    return changed


def _with(space: Space, changes: dict[str, Any]) -> Space:
    tree = {**space.model_dump(mode="json", by_alias=True), **changes}
    return check(Space, tree)


def show_answer(answer: dict[str, Any]) -> None:
    """The best sample and what it took to find it."""
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    states = ", ".join(f"{count} {state}" for state, count in answer["states"].items())
    say(f"{answer['sweep']}: {answer['trials']} trials ({states}), {answer['task_steps']} tasks")
    best = answer["best"]
    if best is not None:
        values = ", ".join(f"{name} {_number(v)}" for name, v in best["values"].items())
        say(f"best: sample {best['sample']}, {values}")
        for path, value in best["params"].items():
            say(f"    {path} = {json.dumps(value)}")
    for seed, result in answer["test"].items():
        say(f"on the test, seed {seed}: last {_number(result['metrics'].get('last_pooled'))} %")
    say(
        f"computed {_counts(answer['computed'])}; found in the store {_counts(answer['reused'])}, "
        f"which saved {answer['seconds_saved']:.0f} s"
    )
    say(f"next: raycl report {answer['sweep']} --html sweep.html")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing"
