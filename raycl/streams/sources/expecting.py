"""Whether a data set is what its entry says: classes and images by split. Opens no image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from raycl.errors import DataError
from raycl.streams.source import listed
from raycl.streams.sources.listing import known_keys, name_of
from raycl.streams.sources.placing import OVERRIDE, Placed


def check_expected(placed: Placed, class_names: tuple[str, ...], counts: Mapping[str, int]) -> None:
    """A DataError where the data set is not whole, or is another one."""
    told = list(differences(placed, class_names, counts))
    if not told:
        return
    name = placed.entry.name
    raise DataError(
        f"{placed.entry.title} is not as it should be: {'; '.join(told)}",
        got=str(placed.folder),
        do=f"raycl data verify {name} says which files; a part of it that is meant is declared in "
        f"{placed.folder / OVERRIDE} (classes: …, counts: …)",
    )


def differences(
    placed: Placed, class_names: tuple[str, ...], counts: Mapping[str, int]
) -> Iterator[str]:
    """What is not as the entry says, in words."""
    entry = placed.entry
    if len(class_names) != entry.classes:
        known = known_keys(entry.names, placed.folder)
        names = {name_of(name, entry.names) for name in known.values()}
        absent = sorted(names - set(class_names)) if len(names) == entry.classes else []
        which = f" (without {listed(absent)})" if absent else ""
        yield f"{len(class_names)} classes{which}, and {entry.classes} are expected"
    for split, expected in placed.expected.items():
        found = counts.get(split, 0)
        if found != expected:
            where = "" if split == "all" else f" to {split}"
            yield f"{found:,} images{where}, and {expected:,} are expected"
