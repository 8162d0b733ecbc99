"""Options that several commands share: where the work is done, and what is skipped."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from raycl.config.streams import ImageFiles, StreamSpec
from raycl.errors import ConfigError

SINKS = ("tensorboard", "wandb", "mlflow")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

F = TypeVar("F", bound=Callable[..., Any])

_PLACE = (
    click.option("--store", help="A folder, s3:// or gs:// [RAYCL_STORE, else raycl-store]."),
    click.option(
        "--pool", type=click.Choice(["local", "ray"]), help="This process, or Ray actors."
    ),
    click.option("--address", help="A running Ray cluster, host:port; implies --pool ray."),
    click.option("--workers", type=int, help="Ray workers beside the learner."),
)


def add_place(command: F) -> F:
    """The options --store, --pool, --address and --workers."""
    for option in reversed(_PLACE):
        command = option(command)
    return command


add_sinks = click.option(
    "--log-to", multiple=True, type=click.Choice(SINKS), help="Tell this tool of it as well."
)


def flags_of_place(
    *,
    store: str | None,
    pool: str | None,
    address: str | None,
    workers: int | None,
    log_to: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The fields of an `Execution` that were given."""
    given = {
        "store": store,
        "pool": "ray" if address and not pool else pool,
        "address": address,
        "workers": workers,
        "log_to": log_to or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def seconds_of(text: str) -> float:
    """A duration as users write it."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise ConfigError("not a duration", got=text, do="write 90s, 5m, 12h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def skipping_corrupt(stream: StreamSpec) -> StreamSpec:
    """The stream with its corrupt images left out."""
    if not isinstance(stream, ImageFiles):
        raise ConfigError(
            "--skip-corrupt is for images in folders", got=f"stream.kind={stream.kind}"
        )
    return stream.model_copy(update={"corrupt": "skip"})
