"""`raycl import`: a result that somebody else measured, into the store and the leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import click

from raycl.cli.places import existing_store
from raycl.engine.run import default_store
from raycl.errors import ConfigError
from raycl.observe.console import say
from raycl.report.imported.matrix import Unit
from raycl.report.imported.storing import Format, Imported, Protocol, Said, import_file
from raycl.report.reading import finished_runs
from raycl.store.store import Store


@click.command("import")
@click.argument("file", type=Path)
@click.option("--method", help="Whose result it is; a log of mammoth says it.")
@click.option("--stream", help="On which stream; else the names of the tasks.")
@click.option("--backbone", help="With which backbone.")
@click.option("--like", metavar="RUN", help="It was measured as this run of ours: onto its board.")
@click.option("--seed", "seeds", multiple=True, type=int, help="Of each run of the file.")
@click.option("--tests", help="Test samples of each task, 3333,1000,…, for pooled accuracies.")
@click.option("--unit", type=click.Choice(get_args(Unit)), help="Of the accuracies.")
@click.option("--protocol", type=click.Choice(get_args(Protocol)), help="Else by the matrix.")
@click.option("--format", "form", type=click.Choice(get_args(Format)), help="Else by the file.")
@click.option("--store", help="Where it goes [RAYCL_STORE, else raycl-store].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def importing(
    file: Path,
    method: str | None,
    stream: str | None,
    backbone: str | None,
    like: str | None,
    seeds: tuple[int, ...],
    tests: str | None,
    unit: Unit | None,
    protocol: Protocol | None,
    form: Format | None,
    store: str | None,
    as_json: bool,
) -> None:
    """An accuracy matrix in FILE, as a result marked imported wherever it is shown.

    FILE is CSV (a header with the tasks, then a row after each task) or a result log of mammoth
    (logs.pyd). A full matrix is taken to be among all classes, a triangular one among those seen.
    """
    opened = Store.open(store or default_store()) if like is None else existing_store(store)
    twin = None if like is None else finished_runs(opened, [like])[0]
    said = Said(method, stream, backbone, protocol, seeds, _counts(tests), unit, twin)
    found = import_file(opened, file, said, form)
    if as_json:
        click.echo(json.dumps(_answer(found)))
        return
    for one in found:
        values = one.values
        verb = "imported" if one.new else "there already"
        say(f"{verb}: {values['label']} on {values['stream_label']}, {values['protocol']}")
        say(f"  {values['key']}")
    say("raycl report shows it", err=True)


def _answer(found: list[Imported]) -> dict[str, Any]:
    return {
        "imported": [one.values["key"] for one in found if one.new],
        "found": [one.values["key"] for one in found if not one.new],
        "results": [one.values for one in found],
    }


def _counts(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise ConfigError(
            "--tests is a list of whole numbers", got=text, do="--tests 3333,1000,500"
        ) from error
