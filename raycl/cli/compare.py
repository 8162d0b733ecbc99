"""`raycl compare A B`."""

from __future__ import annotations

import json

import click
from rich.table import Table
from rich.text import Text

from raycl.cli.places import existing_store
from raycl.errors import DataError
from raycl.metrics.comparison import Comparison
from raycl.metrics.comparison import compare as compare_runs
from raycl.observe.console import Console
from raycl.report.reading import FinishedRun, finished_runs, stages_of


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--store", help="Where the runs are [RAYCL_STORE, else raycl-store].")
@click.option("--draws", default=10_000, show_default=True, help="Bootstrap resamples.")
@click.option("--seed", default=0, show_default=True, help="Seed of the resampling.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def compare(a: str, b: str, store: str | None, draws: int, seed: int, as_json: bool) -> None:
    """Compare two finished runs, paired sample by sample on their stored predictions.

    A and B are keys, or the first letters of their digests.
    """
    opened = existing_store(store)
    left, right = finished_runs(opened, [a, b])
    if left.values["class_names"] != right.values["class_names"]:
        raise DataError(
            "these runs are on data sets with other classes",
            got=f"{left.values['stream_label']}; {right.values['stream_label']}",
            do="compare two runs on one data set",
        )
    result = compare_runs(
        stages_of(opened, left),
        stages_of(opened, right),
        left.tasks,
        right.tasks,
        draws=draws,
        seed=seed,
    )
    if as_json:
        names = {"a": left.values["key"], "b": right.values["key"]}
        click.echo(json.dumps({**names, **result.as_json()}))
    else:
        _show(left, right, result)


def _show(left: FinishedRun, right: FinishedRun, result: Comparison) -> None:
    table = Table(title=Text(f"{right.values['label']} − {left.values['label']}, points"))
    for name in ("metric", "A", "B", "B − A", "95 % interval"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, row in result.metrics.items():
        if row.difference is None:
            table.add_row(name, *_percent(row.a, row.b), "–", row.why or "")
            continue
        interval = f"[{row.low:+.2f}, {row.high:+.2f}]"
        table.add_row(name, *_percent(row.a, row.b), f"{row.difference:+.2f}", interval)
    console = Console()
    console.print(table, highlight=False)
    console.print(
        f"{result.samples} test samples; only A right: {result.only_a_right}, "
        f"only B right: {result.only_b_right}; {result.draws} paired resamples",
        highlight=False,
    )


def _percent(*values: float | None) -> list[str]:
    return ["–" if value is None else f"{value:.1f}" for value in values]
