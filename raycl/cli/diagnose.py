"""`raycl diagnose RUN`: what may be wrong with a run."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.padding import Padding
from rich.text import Text

from raycl.cli.places import existing_store
from raycl.observe.console import Console, say
from raycl.report.diagnosis_page import WORDS, shown_figure, write_diagnosis
from raycl.report.findings import Diagnosis
from raycl.report.findings import diagnose as judge
from raycl.report.reading import evidence_of, finished_runs, zero_shot_twin

_COLOURS = {"good": "green", "watch": "yellow", "bad": "red"}


@click.command()
@click.argument("run")
@click.option("--html", type=Path, metavar="FILE", help="A page with findings and pictures.")
@click.option("--png", type=Path, metavar="FOLDER", help="The pictures as PNG.")
@click.option("--store", help="Where the run is [RAYCL_STORE, else raycl-store].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def diagnose(
    run: str, html: Path | None, png: Path | None, store: str | None, as_json: bool
) -> None:
    """What may be wrong with RUN (a key, or the first letters of its digest).

    Each finding has its figure and the threshold that it is held against; docs/results.md
    lists them. All of it is computed from stored predictions: nothing is trained.
    """
    opened = existing_store(store)
    (found,) = finished_runs(opened, [run])
    twin = zero_shot_twin(finished_runs(opened), found)
    diagnosis = judge(found.values, evidence_of(opened, found), twin.values if twin else None)
    if html is not None:
        write_diagnosis(diagnosis, html)
        say(f"the page written to {html}", err=True)
    if png is not None:
        _draw(diagnosis, png)
    if as_json:
        click.echo(json.dumps(diagnosis.as_json()))
    else:
        _show(diagnosis)


def _draw(diagnosis: Diagnosis, folder: Path) -> None:
    from raycl.report.pictures import write_picture
    from raycl.report.writing import report_unwritable

    with report_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for figure in diagnosis.figures:
        write_picture(figure, folder / f"{figure.key}.png")
    say(f"{len(diagnosis.figures)} pictures written to {folder}", err=True)


def _show(diagnosis: Diagnosis) -> None:
    console = Console(highlight=False)
    # Text, because class names may hold [brackets].
    console.print(Text(f"{diagnosis.label} on {diagnosis.stream}", style="bold"))
    for one in diagnosis.findings:
        head = Text(f"\n{WORDS[one.verdict]:<9}", style=_COLOURS[one.verdict])
        head.append(f"{one.title}  ", style="default")
        head.append(shown_figure(one), style="bold default")
        console.print(head)
        lines = [one.text, *(f"· {line}" for line in one.details)]
        console.print(Padding(Text("\n".join(lines)), (0, 0, 0, 9)))
        console.print(Padding(Text(one.threshold, style="dim"), (0, 0, 0, 9)))
    for what, why in diagnosis.not_judged.items():
        console.print(Text(f"\nnot judged: {what}: {why}", style="dim"))
