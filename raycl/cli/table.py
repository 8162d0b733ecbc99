"""`raycl table`: the leaderboard as a paper prints it, with intervals and its protocol below."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from raycl.cli.places import existing_store
from raycl.errors import ConfigError
from raycl.observe.console import say
from raycl.report.boards import Board, boards
from raycl.report.footnotes import protocol_notes
from raycl.report.intervals import Spread, with_spread
from raycl.report.latex import to_latex
from raycl.report.leaderboard import DEFAULT_METRICS, leaderboard, row_of, to_markdown
from raycl.report.reading import finished_runs
from raycl.report.writing import write_whole


@click.command()
@click.argument("runs", nargs=-1)
@click.option("--latex", is_flag=True, help="booktabs tables in place of Markdown.")
@click.option(
    "--spread",
    type=click.Choice(get_args(Spread)),
    default="interval",
    show_default=True,
    help="Beside a mean: its 95 % interval, or the deviation.",
)
@click.option("--metric", "metrics", multiple=True, help="A column; may be given again.")
@click.option("--out", type=Path, metavar="FILE", help="To a file in place of stdout.")
@click.option("--store", help="Where the runs are [RAYCL_STORE, else raycl-store].")
def table(
    runs: tuple[str, ...],
    latex: bool,
    spread: Spread,
    metrics: tuple[str, ...],
    out: Path | None,
    store: str | None,
) -> None:
    """A table for each label space of RUNS (keys or their first letters), or of all in the store.

    Below each: protocol, data, seeds, what was imported, and why an entry is null.
    """  # fmt: skip
    opened = existing_store(store)
    results = [run.values for run in finished_runs(opened, runs)]
    if not results:
        raise ConfigError("the store holds no finished run", got=opened.uri, do="raycl run, first")
    columns = metrics or DEFAULT_METRICS
    leaderboard(results, columns)  # refuses metrics that there are not
    found = boards(results)
    if latex:
        text = to_latex(found, columns, spread)
    else:
        text = "\n".join(_markdown(board, columns, spread) for board in found)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_whole(out, text.encode())
        say(f"{len(found)} table{'s' * (len(found) > 1)} written to {out}", err=True)


def _markdown(board: Board, metrics: tuple[str, ...], spread: Spread) -> str:
    rows = with_spread([row_of(setting, metrics) for setting in board.settings], spread)
    notes = "\n".join(f"- {note}" for note in protocol_notes(board))
    return f"{to_markdown(rows)}\n{notes}\n"
