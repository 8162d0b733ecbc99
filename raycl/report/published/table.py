"""The published figures: one line of a CSV for each, with the protocol it was measured under.

Guarantees: a file that says something twice, or that is no number, is refused; a figure is
shown with the digits that were published. An empty field means that the source does not say.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from raycl.errors import ConfigError, DataError

FOLDER = Path(__file__).parent
UNVERIFIED = {
    "autoseed": "its text names no author and no code, and its benchmark cannot be found, so "
    "its figures are not shown as published results",
}
"""What is built here and has no table, and why."""

PERCENT = "%"


@dataclass(frozen=True)
class Protocol:
    """What must be equal for two accuracies to mean the same; empty where it is not stated."""

    source: str
    data: tuple[str, ...]
    """Data sets in the order in which they are learnt; none where a figure is of several."""
    tasks: int | None
    classes: int | None
    order: str
    shots: str
    """A number, `all`, or `none` where nothing is trained."""
    backbone: str
    protocol: str
    split: str


@dataclass(frozen=True)
class Figure:
    """A number as it was published."""

    metric: str
    text: str
    unit: str
    note: str

    @property
    def value(self) -> float:
        return float(self.text)


@dataclass(frozen=True)
class Row:
    """A method of a paper under one protocol."""

    label: str
    method: str
    """What raycl calls it; empty for a method that it does not have."""
    options: tuple[tuple[str, str], ...]
    """Of the method in raycl, those that make it this row."""
    protocol: Protocol
    seeds: str
    recipe: str
    figures: tuple[Figure, ...]

    @property
    def is_comparable(self) -> bool:
        """Whether a single run can be held against it."""
        return bool(self.protocol.data)


def papers() -> list[str]:
    """The papers whose figures ship."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def published(paper: str) -> list[Row]:
    """The rows of a paper's tables, in its order."""
    name = paper.lower().replace("-", "_").removesuffix(".csv")
    name = {"dmc_ot": "dmc", "auto_seed": "autoseed"}.get(name, name)
    if name in UNVERIFIED:
        raise ConfigError(f"nothing is published of {name} here", got=paper, do=UNVERIFIED[name])
    if name not in papers():
        close = difflib.get_close_matches(name, papers(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(
            "no paper of this name", got=paper, do=f"{hint}There are {', '.join(papers())}"
        )
    return list(_read(FOLDER / f"{name}.csv"))


@cache
def _read(path: Path) -> tuple[Row, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(rows_of(csv.DictReader(file), path.name))


def rows_of(lines: Iterable[dict[str, str]], name: str) -> list[Row]:
    """Lines of figures as rows; lines of one row need not follow each other."""
    found: dict[tuple[object, ...], list[Figure]] = {}
    heads: dict[tuple[object, ...], Row] = {}
    for number, line in enumerate(lines, start=2):
        try:
            row, figure = _row(line), _figure(line)
        except (KeyError, ValueError, AttributeError) as error:
            raise DataError(f"{name}, line {number}: no published figure", got=error) from error
        key = (row.label, row.protocol, row.seeds)
        if figure.metric and figure.metric in {known.metric for known in found.get(key, ())}:
            raise DataError(f"{name}, line {number}: this figure is there twice", got=row.label)
        found.setdefault(key, []).append(figure)
        heads.setdefault(key, row)
    return [
        Row(row.label, row.method, row.options, row.protocol, row.seeds, row.recipe, tuple(figures))
        for row, figures in zip(heads.values(), found.values(), strict=True)
    ]


def _row(line: dict[str, str]) -> Row:
    protocol = Protocol(
        source=line["source"],
        data=tuple(part for part in line["data"].split("+") if part),
        tasks=_count(line["tasks"]),
        classes=_count(line["classes"]),
        order=line["order"],
        shots=line["shots"],
        backbone=line["backbone"],
        protocol=line["protocol"],
        split=line["split"],
    )
    options = [part.partition("=") for part in line["options"].split(";") if part]
    pairs = tuple((name, value) for name, _, value in options)
    names = (line["label"], line["method"], pairs, protocol, line["seeds"], line["recipe"])
    return Row(*names, figures=())


def _figure(line: dict[str, str]) -> Figure:
    float(line["figure"])
    return Figure(line["metric"], line["figure"], line["unit"] or PERCENT, line["note"])


def _count(text: str) -> int | None:
    return int(text) if text else None
