"""`raycl data`: the data sets known by name, what is here of them, and whether it is whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from raycl.config.sources.catalogue import (
    entry_of,
    joined_streams,
    parse_names,
    source_names,
)
from raycl.config.sources.entry import Entry
from raycl.errors import ConfigError, DataError
from raycl.observe.console import Console, say
from raycl.observe.display import watcher_for_stderr
from raycl.streams.sources.placing import data_root, find, lacking

NOT_STATED = "not stated"


@click.group()
def data() -> None:
    """Data sets by name: list them, prepare one, verify what is here."""


root_option = click.option("--root", help="The root of data sets [RAYCL_DATA].")


@data.command("list")
@root_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def listing(root: str | None, as_json: bool) -> None:
    """Every data set by name: classes, images, what a download brings, licence, what is here."""
    base = data_root(root) if root or os.environ.get("RAYCL_DATA") else None
    entries = [entry_of(name) for name in source_names()]
    if as_json:
        for entry in entries:
            click.echo(json.dumps({**entry.model_dump(mode="json"), "here": here(entry, base)}))
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("name", no_wrap=True)
    for title in ("classes", "images", "MiB"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("licence")
    table.add_column("here", overflow="fold")
    for entry in entries:
        counts = entry.counts or {}
        table.add_row(
            entry.name,
            str(entry.classes),
            f"{sum(counts.values()):,}" if counts else NOT_STATED,
            "–" if entry.mib is None else f"{entry.mib:,.0f}",
            Text(entry.licence or NOT_STATED),
            Text(here(entry, base)),
        )
    console = Console()
    console.print(table, highlight=False)
    for name, of in joined_streams().items():
        console.print(f"{name}: {', '.join(of)}", highlight=False, soft_wrap=True)
    if base is None:
        console.print("RAYCL_DATA is not set: export it to see what is here", highlight=False)


def images_in_words(entry: Entry) -> str:
    """`50,000 + 10,000`: to train, to validate, to test."""
    counts: dict[Any, int] = dict(entry.counts or {})
    if not counts:
        return NOT_STATED
    return " + ".join(f"{counts[s]:,}" for s in ("train", "val", "test", "all") if s in counts)


def here(entry: Entry, base: Path | None) -> str:
    """Whether a data set is here, in a few words."""
    if base is None:
        return "–"
    try:
        return f"yes ({find(entry.name, str(base)).layout.kind})"
    except DataError:
        _, lacks = lacking(entry, base)
        return f"lacks {', '.join(lacks)}" if lacks else "no"


@data.command()
@click.argument("name")
@root_option
@click.option("--download", is_flag=True, help="Fetch what can be fetched. You accept its licence.")
@click.option("--keep", is_flag=True, help="Keep the archives.")
def prepare(name: str, root: str | None, download: bool, keep: bool) -> int:
    """Say what NAME is, under which licence, where it is found; fetch it with --download.

    NAME is a data set, a stream of several, or hf:ORG/NAME.
    """
    base = data_root(root)
    if name.startswith("hf:"):
        return _prepare_hub(name.removeprefix("hf:"), base, download)
    names = parse_names(name) or (entry_of(name).name,)
    return max(_prepare(entry_of(one), base, download, keep) for one in names)


def _prepare(entry: Entry, base: Path, download: bool, keep: bool) -> int:
    from raycl.streams.sources.fetching import DOWNLOADS, fetch

    say = Console().print
    _introduce(entry)
    if here(entry, base).startswith("yes"):
        return _verified(entry.name, base, decode=False)
    place, _ = lacking(entry, base)
    for file in entry.by_hand:
        state = "is there" if (place / file.file).exists() else f"place it in {place}/"
        say(f"   by hand  {file.file}: {file.where}; {state}", soft_wrap=True, highlight=False)
    for one in entry.downloads:
        size = f"{one.mib:,.0f} MiB" if one.mib is not None else f"size {NOT_STATED}"
        say(f"  to fetch  {one.url} ({size})", soft_wrap=True, highlight=False)
    if entry.downloads and not download:
        archives = base / DOWNLOADS / entry.name
        say(
            f"nothing was fetched: add --download, or place these files in {archives}/ "
            "and add --download to unpack them",
            soft_wrap=True,
            highlight=False,
        )
    if not entry.downloads or not download:
        return 1
    with watcher_for_stderr() as watcher:
        fetch(entry, base, watcher, keep=keep)
    if here(entry, base).startswith("yes"):
        return _verified(entry.name, base, decode=False)
    _, lacks = lacking(entry, base)
    say(f"still lacks {', '.join(lacks)}: place it in {place}/", soft_wrap=True, highlight=False)
    return 1


def _introduce(entry: Entry) -> None:
    """Size and licence, before anything else."""
    size = f"{entry.mib:,.0f} MiB to fetch" if entry.mib is not None else f"size {NOT_STATED}"
    lines = {
        entry.name: entry.title,
        "licence": entry.licence or f"{NOT_STATED}: see {entry.home}",
        "size": f"{entry.classes} classes, {images_in_words(entry)} images, {size}",
        "home": entry.home or NOT_STATED,
        "note": entry.about,
    }
    console = Console()
    for title, text in lines.items():
        if text:
            console.print(f"{title:>10}  {text}", highlight=False, markup=False, soft_wrap=True)


def _prepare_hub(repo: str, base: Path, download: bool) -> int:
    from raycl.streams.hub_fetching import about_repo, fetch_repo
    from raycl.streams.hub_sets import repo_of

    console = Console()
    about = about_repo(repo_of(repo))
    console.print(about, highlight=False, markup=False, soft_wrap=True)
    if not download:
        console.print("nothing was fetched: add --download", highlight=False)
        return 1
    place = fetch_repo(repo, base)
    console.print(f"{place}: read it with --stream hf:{repo}", highlight=False, soft_wrap=True)
    return 0


@data.command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@root_option
@click.option("--decode", is_flag=True, help="Decode every image too.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads that decode [all cores].")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def verify(
    names: tuple[str, ...], root: str | None, decode: bool, workers: int | None, as_json: bool
) -> int:
    """Look at every file of the NAMEs, or of all that is here, without a network."""
    base = data_root(root)
    wanted: list[str] = []
    for name in names:
        wanted += parse_names(name) or (entry_of(name).name,)
    broken = 0
    if not names:
        states = {name: here(entry_of(name), base) for name in source_names()}
        wanted = [name for name, state in states.items() if state.startswith("yes")]
        for name, state in states.items():
            if state.startswith("lacks"):
                broken = 1
                place, _ = lacking(entry_of(name), base)
                say(f"FAIL {name}: {state} in {place}", err=as_json)
        if not wanted and not broken:
            raise ConfigError(
                "no data set is here",
                got=str(base),
                do="raycl data prepare NAME says where to begin",
            )
    found = [
        _verified(name, base, decode=decode, workers=workers, as_json=as_json) for name in wanted
    ]
    return max([broken, *found])


def _verified(
    name: str, base: Path, *, decode: bool, workers: int | None = None, as_json: bool = False
) -> int:
    """Print what was found; an exit code."""
    from raycl.streams.sources.verifying import NAMED
    from raycl.streams.sources.verifying import verify as look

    count = workers or len(os.sched_getaffinity(0))
    with watcher_for_stderr() as watcher:
        report = look(name, str(base), decode=decode, workers=count, observer=watcher)
    if as_json:
        click.echo(json.dumps(report.as_json()))
        return 0 if report.ok else 1
    counts = ", ".join(f"{n:,} {s}" for s, n in report.counts.items() if s != "all")
    total = report.counts.get("all", 0)
    mark = "ok  " if report.ok else "FAIL"
    said = f"{mark} {name}: {report.classes} classes, {total:,} images"
    said += f" ({counts})" if counts else ""
    said += f", {report.decoded:,} decoded" if decode else ""
    say = Console(soft_wrap=True, highlight=False, markup=False).print
    say(f"{said}; {report.layout} in {report.folder}")
    for kind, faults in report.named.items():
        for fault in faults:
            say(f"     {kind}: {fault}")
        more = report.faults[kind] - len(faults)
        if more:
            say(f"     {kind}: and {more:,} more ({NAMED} are named)")
    if report.unlisted:
        say(f"     {report.unlisted:,} images beside them are in no list, and are not read")
    return 0 if report.ok else 1
