"""Where a named data set lies, and in which of its layouts. Opens no image.

Guarantees: the first layout of which every file is there; where none is, an error that says
what to place where. A file `raycl-source.yaml` beside the data may correct what is expected of
it, for a part of a set: told, never silent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from raycl.config.loading import read_file
from raycl.config.places import expanded
from raycl.config.sources.catalogue import entry_of, override
from raycl.config.sources.entry import Entry, Layout, ShardsLayout
from raycl.errors import DataError
from raycl.streams.shard_files import SUFFIXES

OVERRIDE = "raycl-source.yaml"
PICKLED = ("cifar-10-batches-py", "cifar-100-python", "train_images.pkl", "train_data.npz")
"""Copies of data sets that hold pickled objects, and are not opened."""


@dataclass(frozen=True)
class Placed:
    """A data set in its folder."""

    entry: Entry
    folder: Path
    layout: Layout

    @property
    def expected(self) -> dict[str, int]:
        """Images by split, as far as they are known; `all` is their sum."""
        own = self.layout.counts if self.layout.kind == "files" else None
        return {str(slot): n for slot, n in (own or self.entry.counts or {}).items()}


def data_root(root: str | None = None) -> Path:
    """The root of data sets: as given, or RAYCL_DATA."""
    place = expanded(root if root is not None else "$RAYCL_DATA")
    if not place.is_dir():
        raise DataError(
            "the root of data sets is no folder",
            got=str(place),
            do="export RAYCL_DATA=/folder/of/data/sets",
        )
    return place


def find(name: str, root: str | None = None) -> Placed:
    """The data set of this name, or a DataError that says what to place where."""
    entry, base = entry_of(name), data_root(root)
    for folder in entry.folders:
        place = base if folder == "." else base / folder
        if not place.is_dir():
            continue
        corrected = _corrected(entry, place) if folder != "." else entry
        for layout in corrected.layouts:
            if not missing(layout, place) and not (folder == "." and _is_anything(layout)):
                return Placed(corrected, place, layout)
    raise _not_there(entry, base)


def missing(layout: Layout, folder: Path) -> list[str]:
    """The files of a layout that are not in a folder."""
    if isinstance(layout, ShardsLayout):
        place = folder / layout.folder
        return [] if _has_shards(place) else [f"*{suffix}" for suffix in SUFFIXES]
    return [need for need in layout.needs if not as_placed(folder / need).exists()]


def as_placed(file: Path) -> Path:
    """The file, or its compressed form where only that is there."""
    packed = file.with_name(f"{file.name}.gz")
    return packed if packed.exists() and not file.exists() else file


def record_files(placed: Placed) -> list[str]:
    """The files of a layout that is made of a few, below the data set's folder."""
    files = (as_placed(placed.folder / need) for need in placed.layout.needs)
    return [file.relative_to(placed.folder).as_posix() for file in files]


def _is_anything(layout: Layout) -> bool:
    """Whether any folder would do, so that it must bear the data set's name."""
    return isinstance(layout, ShardsLayout) or "." in layout.needs


def _has_shards(folder: Path) -> bool:
    for _, folders, files in os.walk(folder):
        if any(file.endswith(SUFFIXES) for file in files):
            return True
        folders[:] = [name for name in folders if not name.startswith(".")]
    return False


def _corrected(entry: Entry, folder: Path) -> Entry:
    file = folder / OVERRIDE
    return override(entry, read_file(file), file) if file.is_file() else entry


def lacking(entry: Entry, base: Path) -> tuple[Path, list[str]]:
    """Where a data set that is not there belongs, and what its first layout lacks there;
    nothing where not even its folder is."""
    found = [base / f for f in entry.folders if f != "." and (base / f).is_dir()]
    if not found:
        return base / entry.folders[0], []
    return found[0], missing(entry.layouts[0], found[0])


def _not_there(entry: Entry, base: Path) -> DataError:
    """What is missing, and what each layout would need."""
    place, lacks = lacking(entry, base)
    what = f"{entry.title} is not on this machine"
    if lacks:
        what = f"{entry.title} is not whole: {place} lacks {', '.join(lacks)}"
    layouts = [", ".join(layout.needs) or "*.parquet" for layout in entry.layouts]
    do = f"place in {place}: " + "; or ".join(layouts)
    pickled = [name for name in PICKLED if (place / name).exists() or (base / name).exists()]
    if pickled:
        do += f" ({pickled[0]} holds pickles, which could run code, and is not opened)"
    hint = f"raycl data prepare {entry.name} says where it is found"
    more = f"{hint} and fetches it with --download" if entry.downloads else hint
    looked = f"looked for {', '.join(entry.folders)} in {base}"
    return DataError(what, got=looked, do=f"{do}\n    {more}")
