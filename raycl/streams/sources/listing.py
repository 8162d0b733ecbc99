"""Every image of a data set that lies in files: path, class, split. Opens no image.

Guarantees: classes are numbered as the data set's own authors number them, else in the order
of their keys; every key has a name; what does not agree is told with its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raycl.config.sources.catalogue import TABLES
from raycl.config.sources.entry import CoOpLayout, FilesLayout, Names
from raycl.errors import DataError
from raycl.streams.labels import names_by_row
from raycl.streams.source import Ints, listed
from raycl.streams.sources.parts import Found, images_of, lines_of, structured, within
from raycl.streams.sources.placing import Placed

Splits = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a data set in the order of its lists, which is the same everywhere."""

    class_names: tuple[str, ...]
    labels: Ints
    splits: Splits
    """`train`, `val` or `test`; empty where a share is to be set aside."""
    paths: tuple[str, ...]
    """Relative to the data set's folder."""

    @property
    def counts(self) -> dict[str, int]:
        """Images by split; `all` is their sum."""
        names, numbers = np.unique(self.splits, return_counts=True)
        by_split = dict(zip(names.tolist(), numbers.tolist(), strict=True))
        ordered = {s: by_split[s] for s in ("train", "val", "test") if s in by_split}
        return {**ordered, "all": len(self.labels)}


def listing_of(placed: Placed) -> Listing:
    """The images that a data set's lists or folders name."""
    match placed.layout:
        case FilesLayout():
            return _of_parts(placed, placed.layout)
        case CoOpLayout():
            return _of_coop(placed, placed.layout)
        case _:
            raise AssertionError(f"no list in the layout {placed.layout.kind}")


def _of_parts(placed: Placed, layout: FilesLayout) -> Listing:
    named = (
        found._replace(split=found.split or ("" if slot == "all" else slot))
        for slot, part in layout.parts.items()
        for found in images_of(part, placed.folder)
    )
    without = set(placed.entry.names.without)
    rows = [found for found in named if found.key not in without]
    if not rows:
        raise DataError(
            f"{placed.entry.title} has no image here",
            got=str(placed.folder),
            do=f"place in it: {', '.join(layout.needs)}",
        )
    keys = _keys_in_order(placed, rows)
    number = {key: c for c, key in enumerate(keys)}
    return Listing(
        class_names=tuple(keys.values()),
        labels=np.fromiter((number[found.key] for found in rows), np.int64, len(rows)),
        splits=np.asarray([found.split for found in rows], dtype="U5"),
        paths=tuple(found.path for found in rows),
    )


def _keys_in_order(placed: Placed, rows: Iterable[Found]) -> dict[str, str]:
    """The name of each key that an image has, in the order of class numbers."""
    names, first = placed.entry.names, dict[str, Found]()
    for found in rows:
        first.setdefault(found.key, found)
    known = known_keys(names, placed.folder)
    if names.listed and all(key.isdigit() for key in first):
        known = {str(c): name for c, name in enumerate(known.values())}  # lists of numbers
    if known:
        strange = [found for key, found in first.items() if key not in known]
        if strange:
            where = names.file or names.table or "its list of classes"
            example = placed.folder / strange[0].path
            raise DataError(
                f"{placed.entry.title}: {len(strange)} classes have no name in {where}",
                got=f"{listed([s.key for s in strange])}; such as {example}",
                do="see that folders and lists are named as the data set's authors name them",
            )
    else:
        known = {key: name_of(key, names) for key in sorted(first)}
    keys = _by_number(placed, rows) or [key for key in known if key in first]
    return {key: known[key] for key in keys}


def _by_number(placed: Placed, rows: Iterable[Found]) -> list[str]:
    """The keys in the order of their numbers, where the lists tell those; else nothing."""
    pairs = {(found.number, found.key) for found in rows}
    if any(number is None for number, _ in pairs):
        return []
    ordered = sorted(pairs, key=lambda pair: pair[0] or 0)
    numbers = [number for number, _ in ordered]
    if numbers != list(range(len(numbers))) or len({key for _, key in pairs}) != len(pairs):
        raise DataError(
            f"{placed.entry.title}: the lists do not give each class one number from 0 on",
            got=listed(f"{key}: {number}" for number, key in ordered),
            do=f"take the lists in {placed.folder} from one place",
        )
    return [key for _, key in ordered]


def known_keys(names: Names, folder: Path) -> dict[str, str]:
    """Every key that has a name, in the order of its file; empty where keys name themselves."""
    if names.table is not None:
        lines = [line for line in lines_of(TABLES / names.table) if not line.startswith("#")]
        return dict(line.split("\t", 1) for line in lines)
    if names.file is not None:
        return dict(_named_in(folder / names.file, names))
    return {key: name_of(key, names) for key in names.listed}


def _named_in(file: Path, names: Names) -> Iterable[tuple[str, str]]:
    pattern = re.compile(names.pattern)
    for line in lines_of(file):
        match = pattern.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"{file.name}: a line is not as it should be",
                got=repr(line[:80]),
                do=f"a line looks like {names.pattern}",
            )
        groups = match.groupdict()
        yield groups["key"], name_of(groups.get("name") or groups["key"], names)


def name_of(key: str, names: Names) -> str:
    """What the text tower reads for a key."""
    if key in names.renamed:
        return names.renamed[key]
    plain = re.sub(names.strip, "", key) if names.strip else key
    return " ".join(plain.replace("_", " ").split()) or key


def _of_coop(placed: Placed, layout: CoOpLayout) -> Listing:
    file = placed.folder / layout.file
    tree = structured(file)
    splits = ("train", "val", "test")
    if not isinstance(tree, dict) or not all(isinstance(tree.get(s), list) for s in splits):
        raise DataError(
            f"{file.name} must hold three lists, train, val and test",
            got=str(file),
            do="fetch it again, whole: a page that asks for a click was perhaps saved instead",
        )
    rows = [(split, *_of_item(item, file)) for split in splits for item in tree[split]]
    before = "" if layout.images == "." else f"{layout.images}/"
    labels = np.asarray([label for _, _, label, _ in rows], np.int64)
    named = names_by_row(file.name, labels, [name for *_, name in rows])
    return Listing(
        class_names=tuple(name_of(name, placed.entry.names) for name in named),
        labels=labels,
        splits=np.asarray([split for split, *_ in rows], dtype="U5"),
        paths=tuple(within(before + path, file) for _, path, _, _ in rows),
    )


def _of_item(item: Any, file: Path) -> tuple[str, int, str]:
    match item:
        case [str(path), int(label), str(name)]:
            return path, label, name
    raise DataError(f"{file.name}: an image is [path, label, name]", got=repr(item)[:100])
