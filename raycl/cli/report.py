"""`raycl report`: finished runs as a leaderboard, a page, pictures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from raycl.cli.places import existing_store
from raycl.cli.report_sweeps import no_sweep, report_sweeps, sweeps_named
from raycl.errors import ConfigError
from raycl.observe.console import Console, say
from raycl.report.boards import boards
from raycl.report.latex import to_latex
from raycl.report.leaderboard import (
    DEFAULT_METRICS,
    Result,
    Row,
    leaderboard,
    to_csv,
    to_markdown,
    to_rich,
    write_parquet,
)
from raycl.report.published.against import Against
from raycl.report.published.against import against as held_against
from raycl.report.published.showing import to_rich as paper_to_rich
from raycl.report.reading import finished_runs
from raycl.report.writing import write_whole, written_whole

STDOUT = "-"


@click.command()
@click.argument("runs", nargs=-1)
@click.option("--html", type=Path, metavar="FILE", help="One page with everything, for a browser.")
@click.option("--png", type=Path, metavar="FOLDER", help="Every figure as a PNG.")
@click.option("--pdf", type=Path, metavar="FOLDER", help="Every figure as a PDF, for a paper.")
@click.option("--csv", type=Path, metavar="FILE", help="The leaderboard in full precision.")
@click.option("--parquet", type=Path, metavar="FILE", help="The same, typed.")
@click.option("--markdown", is_flag=True, help="The leaderboard as Markdown on stdout.")
@click.option(
    "--latex",
    is_flag=False,
    flag_value=STDOUT,
    metavar="[FILE]",
    help="booktabs tables, to FILE or stdout; name RUNS before it.",
)
@click.option("--out", type=Path, help="A .md, .csv, .parquet, .tex or .html file by its name.")
@click.option("--best", type=Path, metavar="FILE", help="Of a sweep: a config for `raycl run`.")
@click.option("--optuna", type=Path, metavar="FILE", help="Of a sweep: for optuna-dashboard.")
@click.option(
    "--against", metavar="PAPER", help="Ours beside a paper's: cgil, lada, dmc, clts, rapf."
)
@click.option("--metric", "metrics", multiple=True, help="A column; may be given again.")
@click.option("--title", help="The title of the page.")
@click.option("--store", help="Where the runs are [RAYCL_STORE, else raycl-store].")
def report(
    runs: tuple[str, ...],
    html: Path | None,
    png: Path | None,
    pdf: Path | None,
    csv: Path | None,
    parquet: Path | None,
    markdown: bool,
    latex: str | None,
    out: Path | None,
    best: Path | None,
    optuna: Path | None,
    against: str | None,
    metrics: tuple[str, ...],
    title: str | None,
    store: str | None,
) -> None:
    """A leaderboard of RUNS (keys or their first letters), or of all in the store; or what
    came out of sweeps, by their names.

    On the terminal unless something else is asked for.
    """
    opened = existing_store(store)
    if sweeps := sweeps_named(opened, runs):
        if against is not None:
            do = "leave its name out: every finished run in the store is held against the paper"
            raise ConfigError("--against is of runs, not of a sweep", got=" ".join(runs), do=do)
        page = html or (out if out is not None and _kind_of(out) == "html" else None)
        report_sweeps(sweeps, html=page, best=best, export=optuna, title=title)
        return
    if best is not None or optuna is not None:
        raise no_sweep(opened, runs)
    found = finished_runs(opened, runs)
    if not found:
        raise ConfigError("the store holds no finished run", got=opened.uri, do="raycl run, first")
    results: list[Result] = [{**run.values, "created": run.record.created} for run in found]
    paper = None if against is None else held_against(against, results)
    columns = metrics or DEFAULT_METRICS
    rows = leaderboard(results, columns)
    asked: list[tuple[_Kind, Path | None]] = [("html", html), ("csv", csv), ("parquet", parquet)]
    if latex not in (None, STDOUT):
        asked.append(("tex", Path(str(latex))))
    if out is not None:
        asked.append((_kind_of(out), out))
    files = [(kind, path) for kind, path in asked if path is not None]
    if png or pdf or any(kind == "html" for kind, _ in files):
        from raycl.report.latents import with_latents

        results = with_latents(opened, results)
    for kind, path in files:
        _write(kind, path, results, rows, columns, title or "raycl report", paper)
        _tell(path, kind, len(rows))
    for picture, folder in (("png", png), ("pdf", pdf)):
        if folder is not None:
            _draw(results, folder, "pdf" if picture == "pdf" else "png")
    if markdown:
        say(to_markdown(rows), nl=False)
    if latex == STDOUT:
        say(to_latex(boards(results), columns), nl=False)
    if not (files or png or pdf or markdown or latex):
        shown = to_rich(rows) if paper is None else paper_to_rich(paper)
        Console().print(*shown, sep="\n")


_Kind = Literal["md", "csv", "parquet", "tex", "html"]


def _kind_of(out: Path) -> _Kind:
    match out.suffix:
        case ".md":
            return "md"
        case ".csv":
            return "csv"
        case ".parquet":
            return "parquet"
        case ".tex":
            return "tex"
        case ".html" | ".htm":
            return "html"
        case other:
            raise ConfigError(
                "a leaderboard is written as .md, .csv, .parquet, .tex or .html",
                got=other or str(out),
            )


def _write(
    kind: _Kind,
    path: Path,
    results: Sequence[Mapping[str, Any]],
    rows: Sequence[Row],
    columns: Sequence[str],
    title: str,
    paper: Against | None,
) -> None:
    match kind:
        case "md":
            write_whole(path, to_markdown(rows).encode())
        case "csv":
            write_whole(path, to_csv(rows).encode())
        case "tex":
            write_whole(path, to_latex(boards(results), columns).encode())
        case "parquet":
            with written_whole(path) as part:
                write_parquet(rows, part)
        case "html":
            from raycl.report.page import write_page

            write_page(results, path, title, paper)


def _tell(path: Path, kind: _Kind, rows: int) -> None:
    what = "the page" if kind == "html" else f"{rows} rows"
    say(f"{what} written to {path}", err=True)


def _draw(results: Sequence[Mapping[str, Any]], folder: Path, kind: Literal["png", "pdf"]) -> None:
    from raycl.report.pictures import write_pictures

    written = write_pictures(boards(results), folder, kind)
    say(f"{len(written)} pictures written to {folder}", err=True)
