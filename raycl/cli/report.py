"""`raycl report`: leaderboards of finished runs."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from raycl.cli.places import existing_store
from raycl.errors import ConfigError
from raycl.report.leaderboard import Row, leaderboard, to_csv, to_markdown, to_rich, write_parquet
from raycl.report.reading import finished_runs


@click.command()
@click.argument("runs", nargs=-1)
@click.option("--store", help="Where the runs are [RAYCL_STORE, else raycl-store].")
@click.option("--metric", "metrics", multiple=True, help="A column; may be given again.")
@click.option("--out", type=Path, help="A .md, .csv or .parquet file; else the terminal.")
def report(
    runs: tuple[str, ...], store: str | None, metrics: tuple[str, ...], out: Path | None
) -> None:
    """A leaderboard of RUNS (keys or their first letters), or of all in the store."""
    opened = existing_store(store)
    found = finished_runs(opened, runs)
    if not found:
        raise ConfigError("the store holds no finished run", got=opened.uri, do="raycl run, first")
    values = [run.values for run in found]
    rows = leaderboard(values, metrics) if metrics else leaderboard(values)
    if out is None:
        Console().print(*to_rich(rows), sep="\n")
        return
    try:
        _write(rows, out)
    except OSError as error:
        raise ConfigError(
            "the leaderboard cannot be written", got=str(out), do=str(error)
        ) from error
    click.echo(f"{len(rows)} rows written to {out}", err=True)


def _write(rows: list[Row], out: Path) -> None:
    match out.suffix:
        case ".md":
            out.write_text(to_markdown(rows), encoding="utf-8")
        case ".csv":
            out.write_text(to_csv(rows), encoding="utf-8")
        case ".parquet":
            write_parquet(rows, out)
        case other:
            raise ConfigError(
                "a leaderboard is written as .md, .csv or .parquet", got=other or str(out)
            )
