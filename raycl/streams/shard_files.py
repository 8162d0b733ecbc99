"""The files that Hugging Face's `datasets` writes, and the split that the name of each tells.

Guarantees the order of paths. Opens none; needs no pyarrow.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from raycl.errors import DataError
from raycl.streams.folders import SPLITS

SUFFIXES = (".parquet", ".arrow")
_STEM = re.compile(r"(?P<split>[a-zA-Z]+)([-_.]\d.*)?")
_OTHER_SPLITS = {"dev": "val"}


@dataclass(frozen=True)
class Shard:
    """One file and the split that its name tells, if it does."""

    path: Path
    split: str | None
    other: str = ""
    """A split that is none of ours."""


def find_shards(folder: Path) -> list[Shard]:
    """The files of a data set below a folder, in the order of their paths."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.endswith(SUFFIXES) and not name.startswith((".", "cache-")):
                found.append(_shard(Path(place) / name, folder))
    if not found:
        raise DataError(
            "no Parquet or Arrow file lies here", got=str(folder), do="name another folder"
        )
    return sorted(found, key=lambda shard: str(shard.path))


def _shard(path: Path, folder: Path) -> Shard:
    match = _STEM.fullmatch(path.stem)
    words = [match["split"].lower()] if match else []
    words += [part.lower() for part in reversed(path.relative_to(folder).parts[:-1])]
    known = {**SPLITS, **_OTHER_SPLITS}
    split = next((known[word] for word in words if word in known), None)
    # `data-00000-of-00001` and `0000` say nothing of a split, `extra-…` says another one.
    other = "" if split or not match or match["split"] in ("data", "part") else match["split"]
    return Shard(path, split, other)
