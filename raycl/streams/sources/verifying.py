"""Walks a data set and says what is missing, miscounted, misnamed or corrupt, with its place.

Guarantees that a tree of any size is gone through folder by folder, that each file is looked
at once, and that of many faults of a kind the first are named and all are counted. Nothing is
changed. Without `decode` no image is opened.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raycl.errors import DataError
from raycl.observe.events import BEFORE_TASKS, Observer, Progress, nobody
from raycl.streams.decoding import CorruptImageError
from raycl.streams.image_set import Pictures
from raycl.streams.sources.expecting import differences
from raycl.streams.sources.listing import Listing
from raycl.streams.sources.parts import is_image
from raycl.streams.sources.placing import Placed, find
from raycl.streams.sources.reading import listed_with_pictures, read_placed

Kind = Literal["missing", "empty", "miscounted", "unreadable", "corrupt", "altered"]
NAMED = 20
"""Faults of a kind that are named."""
_TOLD_EVERY = 512
_ANY_SHARE = 0.2
"""Of a set without a split; the counts of its splits are then expected by nobody."""
_AHEAD = 64
"""Images that decoding may be ahead of the report."""


@dataclass
class Report:
    """What was looked at and what was found."""

    name: str
    folder: str = ""
    layout: str = ""
    classes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    decoded: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    unlisted: int = 0
    """Images that no list names: not a fault."""

    @property
    def ok(self) -> bool:
        return not self.faults

    def add(self, kind: Kind, what: str) -> None:
        """One more fault."""
        self.faults[kind] += 1
        if len(self.named[kind]) < NAMED:
            self.named[kind].append(what)

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "faults": dict(self.faults), "named": dict(self.named), "ok": self.ok}


def verify(
    name: str,
    root: str | None = None,
    *,
    decode: bool = False,
    workers: int = 1,
    observer: Observer = nobody,
) -> Report:
    """Look at a named data set; raises only where it is not there at all."""
    placed = find(name, root)
    report = Report(name, folder=str(placed.folder), layout=placed.layout.kind)
    _check_sums(placed, report)
    try:
        labels, splits, pictures = _contents(placed, report, observer)
    except DataError as error:
        report.add("unreadable", f"{error.what} ({error.got})" if error.got else error.what)
        return report
    _count_classes(placed, labels, splits, report)
    if decode and pictures is not None:
        _decode(pictures, len(labels), report, workers, observer)
    return report


def _contents(
    placed: Placed, report: Report, observer: Observer
) -> tuple[list[str], np.ndarray, Pictures | None]:
    """The class name and split of each image, once counted and walked."""
    if placed.layout.kind == "shards":
        images = read_placed(placed, _ANY_SHARE, expect=False)
        names, labels, splits = images.class_names, images.labels, images.splits
        by_split = {s: int((splits == s).sum()) for s in ("train", "val", "test")}
        _note(placed, report, names, {**by_split, "all": len(labels)})
        return [names[c] for c in labels], splits, images.pictures
    listing, pictures = listed_with_pictures(placed)
    _note(placed, report, listing.class_names, listing.counts)
    if listing.paths:
        _walk(placed, listing, report, observer)
    return [listing.class_names[c] for c in listing.labels], listing.splits, pictures


def _note(
    placed: Placed, report: Report, names: tuple[str, ...], counts: Mapping[str, int]
) -> None:
    report.classes, report.counts = len(names), dict(counts)
    for told in differences(placed, names, counts):
        report.add("miscounted", told)


def _count_classes(placed: Placed, names: list[str], splits: np.ndarray, report: Report) -> None:
    """Where all classes have as many images, the ones that do not."""
    for slot, expected in (placed.entry.per_class or {}).items():
        kept = (
            names
            if slot == "all"
            else [n for n, s in zip(names, splits.tolist(), strict=True) if s == slot]
        )
        for name, found in sorted(Counter({**dict.fromkeys(names, 0), **Counter(kept)}).items()):
            if found != expected:
                where = "" if slot == "all" else f" to {slot}"
                report.add(
                    "miscounted", f"{name}: {found} images{where}, and {expected} are expected"
                )


def _walk(placed: Placed, listing: Listing, report: Report, observer: Observer) -> None:
    """Every listed image by its folder: is it there, and does it hold anything?"""
    by_folder: dict[str, set[str]] = defaultdict(set)
    for path in listing.paths:
        folder, _, name = path.rpartition("/")
        by_folder[folder].add(name)
    done, told = 0, 0
    for folder in sorted(by_folder):
        wanted = by_folder.pop(folder)
        here = placed.folder / folder
        sizes = _sizes(here)
        for name in sorted(wanted - sizes.keys()):
            report.add("missing", str(here / name))
        for name in sorted(n for n in wanted & sizes.keys() if sizes[n] == 0):
            report.add("empty", str(here / name))
        report.unlisted += sum(is_image(name) for name in sizes.keys() - wanted)
        done += len(wanted)
        if done - told >= _TOLD_EVERY or not by_folder:
            told = done
            observer(
                Progress(
                    BEFORE_TASKS, f"verify {placed.entry.name}", done, len(listing.paths), "image"
                )
            )


def _sizes(folder: Path) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except OSError:
        return {}


def _check_sums(placed: Placed, report: Report) -> None:
    for name, expected in placed.entry.checksums.items():
        file = placed.folder / name
        if not file.is_file():
            continue  # what a layout needs is looked for by the layout
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "md5").hexdigest()
        if found != expected:
            report.add("altered", f"{file}: MD5 {found}, and {expected} is expected")


def _decode(
    pictures: Pictures, images: int, report: Report, workers: int, observer: Observer
) -> None:
    """Every image, a few at a time."""

    def fault(row: int) -> str | None:
        try:
            pictures.image(row)
        except CorruptImageError as error:
            return f"{error.place}: {error.what.removeprefix('a corrupt image: ')}"
        except FileNotFoundError:
            return None  # told as missing
        except OSError as error:
            return f"{pictures.place(row)}: {error}"
        return None

    for row, told in enumerate(_in_order(fault, images, workers)):
        if told:
            report.add("corrupt", told)
        report.decoded += 1
        if (row + 1) % _TOLD_EVERY == 0 or row + 1 == images:
            observer(Progress(BEFORE_TASKS, f"decode {report.name}", row + 1, images, "image"))


def _in_order(work: Any, rows: int, workers: int) -> Iterator[str | None]:
    waiting: deque[Future[str | None]] = deque()
    with ThreadPoolExecutor(workers, "raycl-verify") as threads:
        for row in range(rows):
            waiting.append(threads.submit(work, row))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
