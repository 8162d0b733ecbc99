"""Reads precomputed embedding sets: npz and Parquet, one meaning for both.

npz: `train_x`, `train_y`, `test_x`, `test_y`, `classnames`; optional `val_x`, `val_y`,
`text` (one row per class) and `text_has` (which of those rows hold text). Parquet: see
`embedding_parquet`. Nothing is ever unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from raycl.config.streams import Columns
from raycl.errors import DataError
from raycl.streams.embedding_parquet import floats, read_embedding_parquet
from raycl.streams.source import Ints, Source, Table, checked, listed

REQUIRED_KEYS = ("train_x", "train_y", "test_x", "test_y", "classnames")


def read_embeddings(path: Path, columns: Columns | None = None, share: float = 0.2) -> Source:
    """The checked source in one file. `columns` are those of Parquet; `share` of each class is
    for testing where a Parquet file names no split."""
    if path.suffix == ".npz":
        return checked(_read_npz(path))
    return checked(read_embedding_parquet(path, columns or Columns(), share))


def _read_npz(path: Path) -> Source:
    arrays = _load_arrays(path)
    names = _names(path, arrays["classnames"])
    text = arrays.get("text")
    has_text = _text_mask(path, arrays, len(names))
    width = floats(path, "train_x", arrays["train_x"]).shape[1]
    return Source(
        name=path.stem,
        train=_table(path, arrays, "train"),
        validation=_table(path, arrays, "val"),
        test=_table(path, arrays, "test"),
        class_names=names,
        text=floats(path, "text", text)
        if text is not None
        else np.zeros((len(names), width), "f4"),
        has_text=has_text,
        class_domain=np.zeros(len(names), np.int64),
        domains=(path.stem,),
    )


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Opened here, since np.load leaks the handle of a file that it cannot read.
        with path.open("rb") as stream, _npz(stream) as file:
            missing = [key for key in REQUIRED_KEYS if key not in file.files]
            if missing:
                raise DataError(
                    f"{path.name} lacks {', '.join(missing)}",
                    got=f"keys {listed(file.files)}",
                    do=f"an npz embedding set holds {', '.join(REQUIRED_KEYS)}",
                )
            return {key: file[key] for key in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path.name} is not a readable npz file", do=str(error)) from error
    except DataError:
        raise
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise DataError(f"{path.name} is not a readable npz file", do=str(error)) from error
        raise DataError(
            f"{path.name} holds pickled objects, which could run code: not opened",
            do="save plain arrays: numbers for vectors and labels, text for class names",
        ) from error


def _npz(stream: BinaryIO) -> NpzFile:
    loaded = np.load(stream, allow_pickle=False)
    if not isinstance(loaded, NpzFile):
        raise ValueError("a single array, not an archive of named ones")
    return loaded


def _names(path: Path, values: NDArray[Any]) -> tuple[str, ...]:
    if values.dtype.kind not in "US" or values.ndim != 1:
        raise DataError(
            f"{path.name}: classnames must be a list of text",
            got=f"{values.dtype} of shape {values.shape}",
        )
    return tuple(n.decode() if isinstance(n, bytes) else str(n) for n in values)


def _text_mask(path: Path, arrays: Mapping[str, NDArray[Any]], classes: int) -> NDArray[np.bool_]:
    if "text" not in arrays:
        return np.zeros(classes, bool)
    mask = np.asarray(arrays.get("text_has", np.ones(classes, bool)), bool)
    if mask.shape != (classes,):
        raise DataError(
            f"{path.name}: text_has must say yes or no for each class",
            got=f"shape {mask.shape} for {classes} classes",
        )
    return mask


def _table(path: Path, arrays: Mapping[str, NDArray[Any]], split: str) -> Table:
    given = arrays.get(f"{split}_x")
    if given is None or (given.ndim and len(given) == 0):
        width = arrays["train_x"].shape[-1]
        return Table(np.zeros((0, width), np.float32), np.zeros(0, np.int64))
    return Table(
        floats(path, f"{split}_x", given),
        _labels(path, f"{split}_y", arrays.get(f"{split}_y")),
    )


def _labels(path: Path, key: str, values: NDArray[Any] | None) -> Ints:
    if values is None or values.dtype.kind not in "iu" or values.ndim != 1:
        got = "nothing" if values is None else f"{values.dtype} of shape {values.shape}"
        raise DataError(f"{path.name}: {key} must be a list of whole numbers", got=got)
    return values.astype(np.int64)
