"""What each kind of fault cost: a row for each, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median

from rich.table import Table

from soaking.episodes import Episode
from soaking.faults import KINDS, MEANING, Kind, Strike


@dataclass(frozen=True)
class Row:
    """All faults of a kind."""

    kind: Kind
    number: int
    seconds_more_median: float | None
    """Than the undisturbed command; with several faults in one command, shared by them."""
    seconds_more_most: float | None
    making: float
    """Artefacts that the victims were making, on average."""
    again: int
    """Stored artefacts that were made again, all together."""
    restarts: int
    """How often a command had to be given again after it."""


def rows(episodes: Sequence[Episode]) -> list[Row]:
    found = [_row(kind, episodes) for kind in KINDS]
    return [row for row in found if row.number]


def _row(kind: Kind, episodes: Sequence[Episode]) -> Row:
    mine = [(e, s) for e in episodes for s in e.strikes if s.kind == kind]
    more = [(e.seconds - (e.calm or 0.0)) / len(e.strikes) for e, _ in mine]
    remade = [e for e, s in mine if s is _blamed(e)]
    return Row(
        kind,
        len(mine),
        round(median(more), 1) if more else None,
        round(max(more), 1) if more else None,
        round(mean(len(s.making) for _, s in mine), 2) if mine else 0.0,
        sum(len(e.again) for e in remade),
        sum(e.by_hand.count(kind) for e in {id(e): e for e, _ in mine}.values()),
    )


def _blamed(episode: Episode) -> Strike:
    """What is taken for the cause if something was made again: damage, else what came last."""
    return max(episode.strikes, key=lambda s: (s.damaged is not None, s.at))


def as_json(found: Sequence[Row]) -> list[dict[str, object]]:
    return [asdict(row) for row in found]


def as_table(found: Sequence[Row]) -> Table:
    table = Table(
        "fault", "what", "number", "s more, median", "most", "making", "made again", "by hand",
        box=None, pad_edge=False,
    )  # fmt: skip
    for column in table.columns[2:]:
        column.justify = "right"
    for row in found:
        numbers = (row.number, row.seconds_more_median, row.seconds_more_most)
        lost = (row.making, row.again, row.restarts)
        table.add_row(row.kind, MEANING[row.kind], *map(str, (*numbers, *lost)))
    return table
