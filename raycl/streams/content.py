"""What a stream's data *is*, as digests: the parents of every key. Needs no torch.

Paths never enter a key; the bytes behind them do. So a copied or moved file hits, and
an edited one misses.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from pathlib import Path
from typing import assert_never

from raycl.config.streams import DigitsStream, EmbeddingsStream, StreamSpec
from raycl.errors import DataError
from raycl.store.file_digest import file_digest

SUFFIXES = (".npz", ".parquet")


def content_digests(stream: StreamSpec) -> tuple[str, ...]:
    """The digest of each file that the stream reads, in order."""
    return tuple(file_digest(path) for path in files_of(stream))


def files_of(stream: StreamSpec) -> list[Path]:
    """The files behind a stream, each known to exist."""
    match stream:
        case DigitsStream():
            return [digits_file()]
        case EmbeddingsStream():
            return [resolve_path(path) for path in stream.paths]
        case _:
            assert_never(stream)


def resolve_path(text: str) -> Path:
    """A data path as the user wrote it; `$RAYCL_DATA` stands for the root of data sets."""
    if "RAYCL_DATA" in text and not os.environ.get("RAYCL_DATA"):
        raise DataError(
            "the data path refers to RAYCL_DATA, which is not set",
            got=text,
            do="export RAYCL_DATA=/folder/of/data/sets",
        )
    root = os.environ.get("RAYCL_DATA", "")
    for spelling in ("${RAYCL_DATA}", "$RAYCL_DATA"):
        text = text.replace(spelling, root)
    path = Path(text).expanduser()
    if not path.is_file():
        raise DataError("no such data file", got=str(path), do=_nearby(path))
    if path.suffix not in SUFFIXES:
        raise DataError(
            "an embedding set must be a .npz or .parquet file", got=path.name, do="convert it"
        )
    return path


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either: check the path"
    siblings = [p.name for p in path.parent.iterdir() if p.suffix in SUFFIXES]
    close = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else "check the path"


def digits_file() -> Path:
    """scikit-learn's own copy of the digits, found without importing scikit-learn."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("scikit-learn is not installed", do="pip install scikit-learn")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
