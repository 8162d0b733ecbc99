"""Class names and domains as a table tells them row by row, checked for contradictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raycl.errors import DataError
from raycl.streams.source import SHOWN, Ints, listed


def names_by_row(file: str, label: Ints, names: Sequence[str]) -> tuple[str, ...]:
    """The name of each class, where every row says it again."""
    if len(label) and label.min() < 0:
        raise DataError(f"{file}: labels count from 0", got=f"label {label.min()}")
    pairs = dict(zip(label.tolist(), names, strict=True))
    for row, (one, name) in enumerate(zip(label.tolist(), names, strict=True)):
        if pairs[one] != name:
            raise DataError(
                f"{file}: label {one} has two class names",
                got=f"{pairs[one]!r}, and {name!r} at row {row}",
            )
    # Not up to the highest label, which may be a hash of ten digits.
    highest = max(pairs, default=-1)
    gaps = [c for c in range(min(highest, len(pairs) + SHOWN) + 1) if c not in pairs]
    if gaps:
        raise DataError(
            f"{file}: no row names the classes {listed(gaps)}",
            do="number the classes without gaps, or add a row that names each missing one",
        )
    return tuple(pairs[c] for c in range(len(pairs)))


def domains_by_row(
    file: str, label: Ints, named: Sequence[str], classes: int
) -> tuple[Ints, tuple[str, ...]]:
    """The domain of each class, and the domains in order of appearance."""
    domains = tuple(dict.fromkeys(named))
    number = {domain: i for i, domain in enumerate(domains)}
    ids = np.asarray([number[d] for d in named], dtype=np.int64)
    of_class = np.zeros(classes, np.int64)
    of_class[label] = ids
    mixed = np.unique(label[of_class[label] != ids])
    if len(mixed):
        raise DataError(
            f"{file}: a class belongs to one domain",
            got=f"labels {listed(mixed)} in several",
            do="give each domain's classes labels of their own",
        )
    return of_class, domains
