"""Where a run's protocol differs from a published one, said in words.

Guarantees: what only one side states is said to be so, and never taken for equal. Data sets are
told by name and by their number of classes, so a folder named wrongly can pass for another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycl.report.leaderboard import Result, task_count
from raycl.report.published.table import Protocol, Row

NOT_STATED = "not stated"
GIVEN = "given"
NO_RANDOMNESS = "no randomness"

_ALSO = {
    "aircraft": ("fgvc", "fgvcaircraft"),
    "cars": ("stanfordcars", "cars196"),
    "caltech101": ("caltech",),
    "cifar100": ("cifar",),
    "cub": ("cub200", "cub2002011"),
    "dtd": ("textures", "describabletextures"),
    "flowers": ("oxfordflowers", "flowers102", "oxfordflowers102"),
    "food101": ("food",),
    "pets": ("oxfordpets", "oxfordiiitpet", "oxfordiiitpets"),
    "sun397": ("sun",),
}
"""Other names of a data set, in letters and digits alone."""

_CANONICAL = {other: name for name, others in _ALSO.items() for other in others}


@dataclass(frozen=True)
class Mismatch:
    """One part of the protocol that is not the same, or not known to be."""

    what: str
    ours: str
    theirs: str
    decisive: bool
    """Whether a difference of the two figures would mean nothing."""

    def __str__(self) -> str:
        return f"{self.what}: ours {self.ours}, theirs {self.theirs}"


def mismatches(runs: Sequence[Result], row: Row) -> list[Mismatch]:
    """What differs between runs of one setting and a published row, the decisive first."""
    theirs, run = row.protocol, runs[0]
    pairs = [
        *_data(run, theirs),
        *_counts(run, theirs),
        *_label_space(run, theirs),
        *_judge(run),
        *_shots(run, theirs),
        *_backbone(run, theirs),
        *_seeds(runs, row.seeds),
        *_split(theirs),
    ]
    return sorted(pairs, key=lambda pair: not pair.decisive)


def _data(run: Result, theirs: Protocol) -> Iterator[Mismatch]:
    ours = data_names(run)
    if set(ours) != set(theirs.data):
        yield Mismatch("data", _listed(ours), _listed(theirs.data), decisive=True)
    elif theirs.order and ours != theirs.data:
        words = f"{_listed(theirs.data)} (order {theirs.order})"
        yield Mismatch("order of the data sets", _listed(ours), words, decisive=True)


def data_names(run: Result) -> tuple[str, ...]:
    """The data sets of a run in order, by the names that papers have for them."""
    stream = _experiment(run).get("stream")
    # A stream of several sets may have a name of its own, as X-TAIL has.
    names = stream.get("names") if isinstance(stream, Mapping) else None
    return tuple(canonical(str(part)) for part in names or str(run["stream"]).split("+"))


def canonical(name: str) -> str:
    """A data set's usual name, if this is another spelling of it."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower().rsplit(".", 1)[0])
    known = _CANONICAL.get(plain, plain)
    return known if known != plain or plain in _ALSO else name


def _counts(run: Result, theirs: Protocol) -> Iterator[Mismatch]:
    classes, tasks = len(run.get("class_names") or ()), task_count(run)
    if theirs.classes is not None and classes != theirs.classes:
        yield Mismatch("classes", _count(classes), f"{theirs.classes:,}", decisive=True)
    if theirs.tasks is not None and tasks != theirs.tasks:
        yield Mismatch("tasks", _count(tasks), str(theirs.tasks), decisive=True)


def _label_space(run: Result, theirs: Protocol) -> Iterator[Mismatch]:
    if theirs.protocol and run["protocol"] != theirs.protocol:
        yield Mismatch("protocol", str(run["protocol"]), theirs.protocol, decisive=True)


def _judge(run: Result) -> Iterator[Mismatch]:
    if (_experiment(run).get("validation") or {}).get("judge", "test") != "test":
        ours = "the validation split of the training data"
        yield Mismatch("judged on", ours, "the test data", decisive=True)


def _shots(run: Result, theirs: Protocol) -> Iterator[Mismatch]:
    stream = _experiment(run).get("stream")
    ours = str(stream.get("shots") or "all") if isinstance(stream, Mapping) else "not recorded"
    if theirs.shots not in ("none", ours):
        yield Mismatch("shots", ours, theirs.shots or NOT_STATED, decisive=False)


def _backbone(run: Result, theirs: Protocol) -> Iterator[Mismatch]:
    ours = str(run["backbone"])
    name, _, tag = (theirs.backbone or NOT_STATED).partition(":")
    own_name, _, own_tag = ours.partition(":")
    if not theirs.backbone or own_name != name or (tag and own_tag != tag):
        words = "not recorded, since vectors were given" if ours == GIVEN else ours
        yield Mismatch("backbone", words, theirs.backbone or NOT_STATED, decisive=False)


def _seeds(runs: Sequence[Result], theirs: str) -> Iterator[Mismatch]:
    if theirs == NO_RANDOMNESS:
        return
    found = {run["seeds"]["order"] for run in runs if "order" in (run.get("seeds") or {})}
    ours = " ".join(map(str, sorted(found))) or NOT_STATED
    if not theirs or ours != theirs:
        words = theirs.replace("1 unnamed", "one, which is not named") or NOT_STATED
        yield Mismatch("seeds", ours, words, decisive=False)


def _split(theirs: Protocol) -> Iterator[Mismatch]:
    words = f"{theirs.split}'s" if theirs.split else NOT_STATED
    yield Mismatch("split", "as found with the data", words, decisive=False)


def _experiment(run: Result) -> Mapping[str, Any]:
    return run.get("experiment") or {}


def _count(number: int) -> str:
    return f"{number:,}" if number else "not recorded"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
