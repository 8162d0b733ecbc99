"""`raycl run METHOD --stream S`."""

from __future__ import annotations

import json
from typing import Any

import click

from raycl import shipped
from raycl.cli.show import show_result
from raycl.config.loading import Config, load, merge, parse_setting, read_file
from raycl.config.methods import parse_method
from raycl.config.streams import parse_stream
from raycl.engine.run import default_store
from raycl.engine.run import run as run_experiment
from raycl.observe.display import watcher_for_stderr


@click.command()
@click.argument("method", required=False)
@click.option("--stream", help="digits, or embeddings:PATH[+PATH…].")
@click.option("--backbone", help="What made the vectors; `given` takes the stream's own.")
@click.option("--seed", type=int, help="Sets the order, shot, validation and init seeds.")
@click.option(
    "--config", "configs", multiple=True, help="A YAML or JSON file, or a name in clusters/."
)
@click.option("--set", "settings", multiple=True, metavar="A.B=V", help="Override one option.")
@click.option("--store", help="A folder, s3:// or gs:// [RAYCL_STORE, else raycl-store].")
@click.option("--pool", type=click.Choice(["local", "ray"]), help="This process, or Ray actors.")
@click.option("--address", help="A running Ray cluster, host:port; implies --pool ray.")
@click.option("--workers", type=int, help="Ray workers beside the learner.")
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


def config_of(
    *,
    method: str | None,
    stream: str | None,
    backbone: str | None,
    seed: int | None,
    configs: tuple[str, ...],
    settings: tuple[str, ...],
    store: str | None,
    pool: str | None,
    address: str | None,
    workers: int | None,
    stop_after: int | None,
) -> Config:
    """The checked config: files first, then flags, then --set."""
    files = [read_file(shipped.find(name, "clusters")) for name in configs]
    flags: dict[str, Any] = {}
    if method is not None:
        flags["method"] = parse_method(method)
    if stream is not None:
        flags["stream"] = parse_stream(stream)
    if backbone is not None:
        flags["backbone"] = {"name": backbone}
    if seed is not None:
        flags["seed"] = seed
    flags["execution"] = {
        name: value
        for name, value in {
            "store": store,
            "pool": "ray" if address and not pool else pool,
            "address": address,
            "workers": workers,
            "stop_after": stop_after,
        }.items()
        if value is not None
    }
    standard = {"execution": {"store": default_store()}}
    # Together first: which of two settings comes first must not matter.
    asked = merge(parse_setting(text) for text in settings)
    return load([standard, *files, flags, asked])
