"""`raycl store`: look into a store, keep things, clean up."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from raycl.cli.options import seconds_of
from raycl.cli.places import existing_store
from raycl.errors import ConfigError
from raycl.observe.console import Console, say
from raycl.report.reading import finished_runs, named
from raycl.store.artefact import Record
from raycl.store.collect import collect
from raycl.store.store import Store

console = Console()

location = click.option("--store", "uri", help="The store [RAYCL_STORE, else raycl-store].")


@click.group()
def store() -> None:
    """Look into the store, keep things in it, clean it up."""


def _open(uri: str | None) -> Store:
    return existing_store(uri)


@store.command()
@click.argument("kind", required=False)
@location
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def ls(kind: str | None, uri: str | None, as_json: bool) -> None:
    """List artefacts, of one KIND (result, state, predictions, …) or of all."""
    opened = _open(uri)
    records = sorted(opened.records(kind), key=lambda r: r.created)
    if as_json:
        for record in records:
            click.echo(json.dumps(_line(record)))
        return
    console.print(_results(opened) if kind == "result" else _artefacts(records), highlight=False)


def _results(opened: Store) -> Table:
    """Finished runs by what one would choose them by; `digest` is what commands take."""
    table = Table("digest", "method", "stream", "seed", "last", "made", box=SIMPLE_HEAD)
    for run in finished_runs(opened):
        values, last = run.values, run.values["metrics"]["last_pooled"]
        seeds = sorted(set(values["seeds"].values()))
        table.add_row(
            Text(_digest(run.record.key)),
            Text(values["label"]),
            Text(values["stream_label"]),
            ",".join(map(str, seeds)),
            "–" if last is None else f"{last:.1f}",
            run.record.created[:16],
        )
    return table


def _artefacts(records: list[Record]) -> Table:
    table = Table("digest", "kind", "name", "made", "MiB", "s", box=SIMPLE_HEAD)
    for record in records:
        mib = f"{record.total_bytes / 2**20:.2f}"
        names = (Text(_digest(record.key)), record.kind, Text(record.name), record.created[:16])
        table.add_row(*names, mib, f"{record.seconds:.1f}")
    return table


def _digest(key: str) -> str:
    return key.rsplit("/", 1)[-1][:8]


def _line(record: Record) -> dict[str, object]:
    return {
        "key": record.key,
        "created": record.created,
        "bytes": record.total_bytes,
        "seconds": record.seconds,
    }


@store.command()
@click.argument("key")
@location
def show(key: str, uri: str | None) -> None:
    """Print an artefact's record: its meaning, its parents, its files."""
    click.echo(json.dumps(dataclasses.asdict(_known(_open(uri), key)), indent=2))


def _known(opened: Store, key: str) -> Record:
    """The record of a key, or of the only one whose digest begins so."""
    return named(key, list(opened.records()), "raycl store ls")


@store.command()
@location
def verify(uri: str | None) -> int:
    """Read every stored file and compare it with its checksum."""
    problems = list(_open(uri).verify())
    for problem in problems:
        say(f"{problem.file}: {problem.what}")
    say(f"{len(problems)} damaged" if problems else "all whole", err=True)
    return 1 if problems else 0


@store.command()
@click.argument("key")
@click.option("--why", default="", help="The reason, for whoever reads the pin.")
@location
def pin(key: str, why: str, uri: str | None) -> None:
    """Keep an artefact, and what it needs, from the garbage collector."""
    opened = _open(uri)
    found = _known(opened, key).key
    opened.pin(found, why)
    say(f"pinned {found}", err=True)


@store.command()
@click.argument("key")
@location
def unpin(key: str, uri: str | None) -> None:
    """Take a pin away."""
    opened = _open(uri)
    # A pin may outlive what it kept.
    found = [p for p in opened.pins() if p == key or p.rsplit("/", 1)[-1].startswith(key)]
    if len(found) != 1:
        raise ConfigError("no single pin has this key", got=key, do="`raycl store pins` lists them")
    opened.unpin(found[0])


@store.command()
@location
def pins(uri: str | None) -> None:
    """List what is pinned, and why."""
    for key, why in _open(uri).pins().items():
        say(f"{key}  {why}")


@store.command()
@click.argument("key")
@location
def discard(key: str, uri: str | None) -> None:
    """Remove one artefact, so that it is computed again when it is needed."""
    opened = _open(uri)
    found = _known(opened, key).key
    if found in opened.pins():
        raise ConfigError("this artefact is pinned", got=found, do="`raycl store unpin` it first")
    opened.discard(found)
    say(f"discarded {found}", err=True)


@store.command()
@location
@click.option("--delete", is_flag=True, help="Remove it; without this, only list it.")
@click.option("--older-than", default="7d", show_default=True, help="Age, as 90s, 5m, 12h, 7d.")
def gc(uri: str | None, delete: bool, older_than: str) -> None:
    """Show what nothing needs any more: no result, no pin, no running work."""
    age = seconds_of(older_than)
    garbage = collect(_open(uri), delete=delete, older_than=age)
    for item in garbage:
        say(f"{item.path}  {item.bytes} bytes  ({item.reason})")
    total = sum(item.bytes for item in garbage) / 2**20
    verb = "removed" if delete else "would go with --delete"
    things = f"{len(garbage)} thing{'' if len(garbage) == 1 else 's'}"
    ages = f"older than {older_than}, or left by a process that died"
    say(f"{things} {ages}: {total:.1f} MiB, {verb}", err=True)
