"""Paths as a user writes them, before anything is looked for on a disk."""

from __future__ import annotations

import os
from pathlib import Path

from raycl.errors import DataError


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder. A name that no disk can hold is not there, where
    pathlib's own question ends in an OSError: several paths joined by + are soon that long."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """The same of a file."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """The same of a folder."""
    return os.path.isdir(path)  # noqa: PTH112


def at_home(path: str | Path) -> Path:
    """`~` is the home folder; of a user that there is not, it is part of the name."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def expanded(text: str) -> Path:
    """`~` is the home folder, and `$RAYCL_DATA` the root of data sets and weights."""
    root = os.environ.get("RAYCL_DATA", "")
    if "RAYCL_DATA" in text and not root:
        raise DataError(
            "the path refers to RAYCL_DATA, which is not set",
            got=text,
            do="export RAYCL_DATA=/folder/of/data/sets",
        )
    for spelling in ("${RAYCL_DATA}", "$RAYCL_DATA"):
        text = text.replace(spelling, root)
    return at_home(text)
