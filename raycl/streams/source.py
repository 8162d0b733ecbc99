"""A source: labelled vectors with class names and, where there are any, text vectors.

Guarantees after `Source.checked`: every vector finite and of one width, labels inside
the class list, text of the same width. What is odd but usable (an empty class) becomes
a warning. Labels here are the data set's own class ids; no order is applied yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raycl.errors import DataError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SHOWN = 5
"""How many names or indices an error lists before it says how many more there are."""


@dataclass(frozen=True)
class Table:
    """Vectors and the class id of each."""

    x: Floats
    y: Ints
    image: Ints | None = None
    """The row of the image set that each vector is of; None where vectors were given."""

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Source:
    """One or more joined domains, before any order is applied."""

    name: str
    train: Table
    validation: Table
    """A validation set of the source's own; may be empty."""
    test: Table
    class_names: tuple[str, ...]
    text: Floats
    """One row per class; rows of classes without text are zero."""
    has_text: NDArray[np.bool_]
    class_domain: Ints
    domains: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def width(self) -> int:
        return int(self.train.x.shape[1])


def checked(source: Source) -> Source:
    """The source with its warnings, or a DataError that names the fault."""
    if len(source.train) == 0:
        raise DataError(f"{source.name} has no training vectors", do="check its split names")
    if len(source.test) == 0:
        raise DataError(f"{source.name} has no test vectors", do="check its split names")
    for split in ("train", "validation", "test"):
        _check_table(source, split, getattr(source, split))
    _check_text(source)
    return Source(**{**source.__dict__, "warnings": source.warnings + tuple(_oddities(source))})


def _check_table(source: Source, split: str, table: Table) -> None:
    where = f"{source.name}, {split}"
    if table.x.ndim != 2 or len(table.x) != len(table.y):
        raise DataError(
            f"{where}: expected one vector per label",
            got=f"vectors of shape {table.x.shape}, {len(table.y)} labels",
        )
    if len(table) and table.x.shape[1] != source.width:
        raise DataError(
            f"{where}: vectors of another width than in train",
            got=f"{table.x.shape[1]} and {source.width}",
            do="embed every split with one backbone",
        )
    _check_finite(where, table.x)
    outside = np.flatnonzero((table.y < 0) | (table.y >= source.classes))
    if len(outside):
        raise DataError(
            f"{where}: {len(outside)} labels lie outside the list of {source.classes} classes",
            got=f"label {table.y[outside[0]]} at row {outside[0]}",
            do="labels count from 0 into the class names",
        )


def _check_finite(where: str, x: Floats) -> None:
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise DataError(
            f"{where}: {len(bad)} vectors hold NaN or infinity",
            got=f"rows {listed(bad)}",
            do="embed those samples again or leave them out",
        )
    zero = np.flatnonzero(~x.any(axis=1))
    if len(zero):
        raise DataError(
            f"{where}: {len(zero)} vectors are all zero and have no direction",
            got=f"rows {listed(zero)}",
            do="embed those samples again or leave them out",
        )


def _check_text(source: Source) -> None:
    if source.has_text.any() and source.text.shape[1] != source.width:
        raise DataError(
            f"{source.name}: text and image vectors differ in width",
            got=f"text {source.text.shape[1]}, image {source.width}",
            do="use the text tower of the backbone that embedded the images",
        )
    if source.text.shape[0] != source.classes:
        raise DataError(
            f"{source.name}: one text vector per class is expected",
            got=f"{source.text.shape[0]} for {source.classes} classes",
        )
    _check_finite(f"{source.name}, text", source.text[source.has_text])


def _oddities(source: Source) -> list[str]:
    out = []
    for split, table in (("training", source.train), ("test", source.test)):
        counts = np.bincount(table.y, minlength=source.classes)
        empty = [source.class_names[c] for c in np.flatnonzero(counts == 0)]
        if empty:
            out.append(
                f"{source.name}: {len(empty)} classes have no {split} sample: {listed(empty)}"
            )
    counts = np.bincount(source.train.y, minlength=source.classes)
    present = counts[counts > 0]
    if present.max() > 10 * present.min():
        out.append(
            f"{source.name}: training classes are imbalanced, "
            f"{present.min()} to {present.max()} samples"
        )
    return out


def listed(values: object) -> str:
    """The first few values, and how many more there are."""
    items = [str(v) for v in values]  # type: ignore[attr-defined]
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def concatenate(tables: list[Table]) -> Table:
    """One table after the other."""
    images = [t.image for t in tables if t.image is not None]
    return Table(
        np.concatenate([t.x for t in tables]),
        np.concatenate([t.y for t in tables]),
        np.concatenate(images) if len(images) == len(tables) else None,
    )


def join(sources: list[Source]) -> Source:
    """Several domains in one label space; the same name in two of them stays two classes."""
    if len(sources) == 1:
        return sources[0]
    widths = {s.name: s.width for s in sources}
    if len(set(widths.values())) > 1:
        raise DataError(
            "joined domains must share one vector width",
            got=str(widths),
            do="embed them with one backbone",
        )
    first_class = np.cumsum([0] + [s.classes for s in sources])
    first_domain = np.cumsum([0] + [len(s.domains) for s in sources])

    def table(split: str) -> Table:
        tables = [getattr(s, split) for s in sources]
        x = np.concatenate([t.x.reshape(-1, sources[0].width) for t in tables])
        return Table(
            x, np.concatenate([t.y + o for t, o in zip(tables, first_class, strict=False)])
        )

    return Source(
        name="+".join(s.name for s in sources),
        train=table("train"),
        validation=table("validation"),
        test=table("test"),
        class_names=tuple(n for s in sources for n in s.class_names),
        text=np.concatenate([_text_of_width(s) for s in sources]),
        has_text=np.concatenate([s.has_text for s in sources]),
        class_domain=np.concatenate(
            [s.class_domain + o for s, o in zip(sources, first_domain, strict=False)]
        ),
        domains=tuple(d for s in sources for d in s.domains),
        warnings=tuple(w for s in sources for w in s.warnings),
    )


def _text_of_width(source: Source) -> Floats:
    if source.has_text.any():
        return source.text
    return np.zeros((source.classes, source.width), np.float32)


def keep_classes(source: Source, keep: Ints) -> Source:
    """Only the given classes, renumbered in their old order."""
    new_id = np.full(source.classes, -1)
    new_id[keep] = np.arange(len(keep))

    def table(old: Table) -> Table:
        rows = new_id[old.y] >= 0
        return Table(old.x[rows], new_id[old.y[rows]])

    return Source(
        name=source.name,
        train=table(source.train),
        validation=table(source.validation),
        test=table(source.test),
        class_names=tuple(source.class_names[c] for c in keep),
        text=source.text[keep],
        has_text=source.has_text[keep],
        class_domain=source.class_domain[keep],
        domains=source.domains,
        warnings=source.warnings,
    )
