"""`raycl run METHOD --stream S`."""

from __future__ import annotations

import json
from typing import Any

import click

from raycl import shipped
from raycl.cli.options import add_place, add_sinks, flags_of_place, skipping_corrupt
from raycl.cli.show import show_result
from raycl.config.clusters import execution_part
from raycl.config.loading import Config, load, merge, parse_setting, read_file
from raycl.config.methods import parse_method
from raycl.config.streams import ImageFiles, parse_probe, parse_stream
from raycl.engine.run import default_store
from raycl.engine.run import run as run_experiment
from raycl.observe.console import say
from raycl.observe.display import watcher_for_stderr


@click.command()
@click.argument("method", required=False)
@click.option(
    "--stream",
    help="digits, glyphs, tiny-xtail, a name of `raycl data list`, folder:PATH[+PATH…], "
    "hf:ORG/NAME or embeddings:PATH[+PATH…].",
)
@click.option("--probe", help="A stream that is evaluated after each task and never trained.")
@click.option(
    "--backbone",
    help="tiny-clip, ARCH:TAG, ARCH:FILE, hf-hub:ORG/REPO, local-dir:PATH; `given` for embeddings.",
)
@click.option("--skip-corrupt", is_flag=True, help="Leave out images that cannot be decoded.")
@click.option("--seed", type=int, help="Sets the order, shot, validation and init seeds.")
@click.option(
    "--config", "configs", multiple=True, help="A YAML or JSON file, or a name in clusters/."
)
@click.option("--set", "settings", multiple=True, metavar="A.B=V", help="Override one option.")
@add_place
@add_sinks
@click.option("--stop-after", type=int, metavar="N", help="Stop, resumably, after task N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def run(as_json: bool, **options: Any) -> None:
    """Run METHOD on a stream: a built-in name, or the file of your own method.

    The same command again continues a stopped run, or answers from the store.
    """
    config = config_of(**options)
    with watcher_for_stderr() as watcher:
        result = run_experiment(config.experiment, config.execution, watcher)
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        show_result(result)
        _show_probe(result.values)


def _show_probe(values: dict[str, Any]) -> None:
    """The accuracy on the probe before any task and after each, if there is a probe."""
    probe = values["probe_stream"]
    if probe is None:
        return
    stages = [values["probe_zero_shot"], *values["probe"]]
    shown = "  ".join("–" if value is None else f"{value:.1f}" for value in stages)
    why = values["why_null"].get("probe_last")
    title = f"probe {probe['name']}"
    say(f"{title:>20}  {shown} %" + (f"  ({why})" if why else ""))


def config_of(
    *,
    method: str | None,
    stream: str | None,
    probe: str | None,
    backbone: str | None,
    skip_corrupt: bool,
    seed: int | None,
    configs: tuple[str, ...],
    settings: tuple[str, ...],
    stop_after: int | None,
    **place: Any,
) -> Config:
    """The checked config: files first, then flags, then --set."""
    files = [execution_part(read_file(shipped.find(name, "clusters"))) for name in configs]
    flags: dict[str, Any] = {}
    if method is not None:
        flags["method"] = parse_method(method)
    if stream is not None:
        flags["stream"] = parse_stream(stream)
    if probe is not None:
        flags["probe"] = parse_probe(probe)
    if backbone is not None:
        flags["backbone"] = {"name": backbone}
    if seed is not None:
        flags["seed"] = seed
    flags["execution"] = flags_of_place(**place)
    if stop_after is not None:
        flags["execution"]["stop_after"] = stop_after
    standard = {"execution": {"store": default_store()}}
    # Together first: which of two settings comes first must not matter.
    asked = merge(parse_setting(text) for text in settings)
    config = load([standard, *files, flags, asked])
    return _skipping_corrupt(config) if skip_corrupt else config


def _skipping_corrupt(config: Config) -> Config:
    """Of the stream and of the probe, as far as they are images in files."""
    experiment = config.experiment
    roles = {"stream": experiment.stream, "probe": experiment.probe}
    skip = {
        role: skipping_corrupt(spec)
        for role, spec in roles.items()
        if spec is not None and (role == "stream" or isinstance(spec, ImageFiles))
    }
    return config.model_copy(update={"experiment": experiment.model_copy(update=skip)})
