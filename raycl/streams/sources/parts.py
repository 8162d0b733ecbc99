"""The images that one list or tree of folders names, each with the key of its class.

Guarantees an order that no file system moves and paths that stay within the data set. No
image is opened, and whether one is there is not asked: that is `verify`'s.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, assert_never

import yaml

from raycl.config.sources.entry import (
    ColumnsPart,
    FolderPart,
    LinesPart,
    NumberedPart,
    PairsPart,
    Part,
)
from raycl.errors import DataError
from raycl.streams.folders import SUFFIXES


class Found(NamedTuple):
    """One image, as its list names it."""

    path: str
    key: str
    split: str | None = None
    number: int | None = None
    """The class's place in the data set's own order, where the list tells it."""


def images_of(part: Part, folder: Path) -> Iterator[Found]:
    """What a part names, below the data set's folder."""
    match part:
        case FolderPart():
            return _in_folders(part, folder)
        case LinesPart():
            return _in_lines(part, folder)
        case PairsPart():
            return _in_pairs(part, folder)
        case ColumnsPart():
            return _in_columns(part, folder)
        case NumberedPart():
            return _numbered(part, folder)
        case _:
            assert_never(part)


def lines_of(file: Path) -> list[str]:
    """The lines of a text file that hold something."""
    try:
        return [line for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> DataError:
    """That a list cannot be read."""
    return DataError(
        f"{file.name} cannot be read: {error}", got=str(file), do="fetch it again, whole"
    )


def within(path: str, file: Path) -> str:
    """A path as a list gives it, which must stay below the data set's folder."""
    plain = str(PurePosixPath(path.replace("\\", "/").removeprefix("./")))
    if plain.startswith("/") or ".." in plain.split("/"):
        raise DataError(
            f"{file.name} names a file outside of the data set", got=path, do=f"look at {file}"
        )
    return plain


def is_image(name: str) -> bool:
    """Whether a file is one by its name."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def class_folders(root: Path) -> list[str]:
    """The folders of a folder, in order."""
    try:
        with os.scandir(root) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise unreadable(root, error) from error


def images_in(folder: Path) -> list[str]:
    """The images of a folder, in order."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if is_image(e.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(folder, error) from error


def _in_folders(part: FolderPart, folder: Path) -> Iterator[Found]:
    before = "" if part.root == "." else f"{part.root}/"
    below = f"/{part.below}" if part.below else ""
    for name in class_folders(folder / part.root):
        inner = f"{before}{name}{below}"
        for image in images_in(folder / inner):
            yield Found(f"{inner}/{image}", name)


def _in_lines(part: LinesPart, folder: Path) -> Iterator[Found]:
    file, pattern = folder / part.file, re.compile(part.pattern)
    for number, line in enumerate(lines_of(file), 1):
        match = pattern.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"{file.name}: line {number} is not as it should be",
                got=repr(line[:80]),
                do=f"a line looks like {part.pattern}",
            )
        groups = match.groupdict()
        yield Found(within(part.image.format(**groups), file), groups["key"])


def _in_pairs(part: PairsPart, folder: Path) -> Iterator[Found]:
    file = folder / part.file
    tree = structured(file)
    data, numbers = (
        (tree.get("data"), tree.get(part.labels)) if isinstance(tree, dict) else (None, None)
    )
    if not isinstance(data, list) or not isinstance(numbers, list) or len(data) != len(numbers):
        raise DataError(
            f"{file.name} must hold two lists of one length, data and {part.labels}",
            got=str(file),
            do="fetch it again, whole",
        )
    before = "" if part.root == "." else f"{part.root}/"
    for path, number in zip(data, numbers, strict=True):
        if not isinstance(path, str) or type(number) is not int:
            raise DataError(
                f"{file.name}: data holds paths and {part.labels} whole numbers",
                got=f"{path!r}, {number!r}",
            )
        plain = within(before + re.sub(part.strip, "", path, count=1), file)
        if part.key == "folder":
            yield Found(plain, PurePosixPath(plain).parent.name, number=number)
        else:
            yield Found(plain, str(number), number=number)


def _in_columns(part: ColumnsPart, folder: Path) -> Iterator[Found]:
    file = folder / part.file
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            lacking = {part.path, *part.keys} - set(reader.fieldnames or ())
            if lacking:
                raise DataError(
                    f"{file.name} lacks the columns {', '.join(sorted(lacking))}",
                    got=f"columns {', '.join(reader.fieldnames or ())}",
                )
            for row in reader:
                yield from _of_row(part, row, file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(file, error) from error


def _of_row(part: ColumnsPart, row: dict[str, str], file: Path) -> Iterator[Found]:
    try:
        own = [key for key in part.keys if float(row[key]) == 1]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{file.name}: a column of a class holds 0 or 1", got=str(row[part.path])
        ) from error
    if len(own) > 1:
        raise DataError(
            f"{file.name}: an image is of one class", got=f"{row[part.path]}: {', '.join(own)}"
        )
    for key in own:
        yield Found(within(part.image.format(path=row[part.path]), file), key)


def _numbered(part: NumberedPart, folder: Path) -> Iterator[Found]:
    images, labels, training = (
        _by_number(folder / name) for name in (part.images, part.labels, part.training)
    )
    for name, other in ((part.labels, labels), (part.training, training)):
        odd = sorted(images.keys() ^ other.keys(), key=int)
        if odd:
            raise DataError(
                f"{part.images} and {name} number different images: {len(odd)} are in one only",
                got=f"number {odd[0]}",
                do="take all three from one copy of the data set",
            )
    before = "" if part.root == "." else f"{part.root}/"
    file = folder / part.images
    for number, path in images.items():
        split = {"1": "train", "0": "test"}.get(training[number])
        if split is None:
            raise DataError(
                f"{part.training}: 1 is for training and 0 for testing",
                got=f"{training[number]} for image {number}",
            )
        yield Found(within(before + path, file), labels[number], split)


def _by_number(file: Path) -> dict[str, str]:
    out: dict[str, str] = {}
    for line in lines_of(file):
        number, _, rest = line.strip().partition(" ")
        if not number.isdigit() or not rest.strip():
            raise DataError(f"{file.name}: a line holds a number and a word", got=repr(line[:80]))
        out[number] = rest.strip()
    return out


def structured(file: Path) -> Any:
    """What a JSON or YAML file holds; YAML without code."""
    try:
        text = file.read_text("utf-8-sig")
        if file.suffix == ".json":
            return json.loads(text)
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise unreadable(file, error) from error
