"""Paths as a user writes them, before anything is looked for on a disk."""

from __future__ import annotations

import os
from pathlib import Path

from raycl.errors import DataError


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
    return Path(text).expanduser()
