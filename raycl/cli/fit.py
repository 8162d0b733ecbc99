"""`raycl fit --embeddings F --generator G`: only the per-class generators, in parallel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from raycl.cli.options import add_place, flags_of_place
from raycl.config.execution import Execution
from raycl.config.loading import check, merge, parse_setting
from raycl.config.spec import Spec
from raycl.config.streams import EmbeddingsStream, parse_stream
from raycl.engine.fitting import FitResult, generator_of
from raycl.engine.fitting import fit as fit_embeddings
from raycl.engine.run import default_store
from raycl.observe.console import Console
from raycl.observe.display import watcher_for_stderr
from raycl.printable import plain

MOST_ROWS = 40
"""Classes that the table shows, slowest first; `classes.json` has all."""


class _Asked(Spec):
    """What the command line may set, besides the generator's options."""

    stream: EmbeddingsStream
    execution: Execution = Execution()


@click.command()
@click.option(
    "--embeddings", required=True, metavar="FILE[+FILE…]", help="A .npz or .parquet of vectors."
)
@click.option(
    "--generator",
    default="vae",
    show_default=True,
    help="mean, gaussian[:full], gmm[:K], vae, shared_vae, diffusion or real[:K].",
)
@click.option(
    "--set", "settings", multiple=True, metavar="A=V", help="Override one option of the generator."
)
@click.option("--classes", multiple=True, metavar="NAME", help="Only this class; may be repeated.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is random [0].")
@click.option("--out", type=click.Path(path_type=Path), help="A folder for all of them together.")
@add_place
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def fit(
    embeddings: str,
    generator: str,
    settings: tuple[str, ...],
    classes: tuple[str, ...],
    seed: int,
    out: Path | None,
    as_json: bool,
    **place: Any,
) -> None:
    """Fit a generator to the training vectors of each class.

    The same command again continues, or finds them in the store; another set of classes fits
    only those that are new.
    """
    trees = [parse_setting(text) for text in settings]
    spec = generator_of(generator, [t for t in trees if "execution" not in t])
    execution = {"store": default_store(), **flags_of_place(**place)}
    asked = check(
        _Asked,
        merge(
            [
                {"stream": parse_stream(f"embeddings:{embeddings}"), "execution": execution},
                *(t for t in trees if "execution" in t),
            ]
        ),
    )
    with watcher_for_stderr() as watcher:
        result = fit_embeddings(
            asked.stream, spec, asked.execution, watcher, seed=seed, classes=classes, out=out
        )
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        _show(result)


def _show(result: FitResult) -> None:
    console = Console()
    table = Table(
        "class", "vectors", "seconds", "dispersion", "mean error", "KiB", box=None, pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    slowest = sorted(result.notes, key=lambda note: -note["seconds"])[:MOST_ROWS]
    for note in slowest:
        numbers = (note["dispersion"], note["mean_error"])
        shown = ("–" if value is None else f"{value:.3f}" for value in numbers)
        table.add_row(
            Text(plain(note["name"])),
            str(note["vectors"]),
            f"{note['seconds']:.2f}",
            *shown,
            f"{note['bytes'] / 1024:.1f}",
        )
    console.print(table)
    if len(result.notes) > MOST_ROWS:
        print_line(console, f"… and {len(result.notes) - MOST_ROWS} classes that took less time")
    made, found = (counts.get("generator", 0) for counts in (result.computed, result.reused))
    print_line(
        console,
        f"{result.generator}: {result.classes} classes, {made} fitted, {found} found in the "
        f"store, {result.seconds:.1f} s, {result.bytes / 2**20:.2f} MiB",
    )
    if result.out:
        print_line(console, f"written to {result.out}: raycl.fitting.export.read_bank reads it")


def print_line(console: Console, text: str) -> None:
    """A line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
