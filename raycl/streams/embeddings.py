"""Reads precomputed embedding sets: npz and Parquet, one meaning for both.

npz: `train_x`, `train_y`, `test_x`, `test_y`, `classnames`; optional `val_x`, `val_y`,
`text` (one row per class) and `text_has` (which of those rows hold text).

Parquet: columns `embedding` (list of floats), `label`, `class_name`, `split`, optional
`domain`. `split` is train, test, val or text; a `text` row holds the text vector of its
class. Nothing is ever unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from raycl.errors import DataError
from raycl.streams.labels import domains_by_row, names_by_row
from raycl.streams.source import Floats, Ints, Source, Table, checked, listed

REQUIRED_KEYS = ("train_x", "train_y", "test_x", "test_y", "classnames")
REQUIRED_COLUMNS = ("embedding", "label", "class_name", "split")
SPLITS = ("train", "test", "val", "text")


def read_embeddings(path: Path) -> Source:
    """The checked source in one file."""
    source = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    return checked(source)


def _read_npz(path: Path) -> Source:
    arrays = _load_arrays(path)
    names = _names(path, arrays["classnames"])
    text = arrays.get("text")
    has_text = _text_mask(path, arrays, len(names))
    width = _floats(path, "train_x", arrays["train_x"]).shape[1]
    return Source(
        name=path.stem,
        train=_table(path, arrays, "train"),
        validation=_table(path, arrays, "val"),
        test=_table(path, arrays, "test"),
        class_names=names,
        text=_floats(path, "text", text)
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
    if f"{split}_x" not in arrays or len(arrays[f"{split}_x"]) == 0:
        width = arrays["train_x"].shape[-1]
        return Table(np.zeros((0, width), np.float32), np.zeros(0, np.int64))
    return Table(
        _floats(path, f"{split}_x", arrays[f"{split}_x"]),
        _labels(path, f"{split}_y", arrays.get(f"{split}_y")),
    )


def _floats(path: Path, key: str, values: NDArray[Any]) -> Floats:
    if values.dtype.kind not in "fiu" or values.ndim != 2:
        raise DataError(
            f"{path.name}: {key} must be a table of numbers, one vector per row",
            got=f"{values.dtype} of shape {values.shape}",
        )
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which the check names
        return np.ascontiguousarray(values, dtype=np.float32)


def _labels(path: Path, key: str, values: NDArray[Any] | None) -> Ints:
    if values is None or values.dtype.kind not in "iu" or values.ndim != 1:
        got = "nothing" if values is None else f"{values.dtype} of shape {values.shape}"
        raise DataError(f"{path.name}: {key} must be a list of whole numbers", got=got)
    return values.astype(np.int64)


def _read_parquet(path: Path) -> Source:
    table = _load_table(path)
    label = _labels(path, "label", table["label"].to_numpy())
    split = np.asarray(table["split"].to_pylist(), dtype=object)
    unknown = sorted({str(s) for s in split} - set(SPLITS))
    if unknown:
        raise DataError(
            f"{path.name}: unknown split", got=listed(unknown), do=f"use {', '.join(SPLITS)}"
        )
    names = names_by_row(path.name, label, table["class_name"].to_pylist())
    x = _floats(path, "embedding", _matrix(path, table["embedding"]))
    domain_of_class, domains = _domains(path, table, label, len(names))
    rows = {name: np.flatnonzero(split == name) for name in SPLITS}
    text, has_text = _text_rows(path, x, label, rows["text"], len(names))
    return Source(
        name=path.stem,
        train=Table(x[rows["train"]], label[rows["train"]]),
        validation=Table(x[rows["val"]], label[rows["val"]]),
        test=Table(x[rows["test"]], label[rows["test"]]),
        class_names=names,
        text=text,
        has_text=has_text,
        class_domain=domain_of_class,
        domains=domains,
    )


def _load_table(path: Path) -> pa.Table:
    try:
        # Not read_table: it brings in pandas, and threads that may outlive the interpreter.
        table = pq.ParquetFile(path).read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path.name} is not a readable Parquet file", do=str(error)) from error
    missing = [name for name in REQUIRED_COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(
            f"{path.name} lacks the columns {', '.join(missing)}",
            got=f"columns {listed(table.column_names)}",
            do=f"it holds images: read it with folder:{path}"
            if "image" in table.column_names
            else f"an embedding set holds {', '.join(REQUIRED_COLUMNS)}",
        )
    empty = [name for name in REQUIRED_COLUMNS if table[name].null_count]
    if empty:
        raise DataError(f"{path.name}: the columns {', '.join(empty)} hold nulls")
    return table


def _matrix(path: Path, column: pa.ChunkedArray) -> NDArray[Any]:
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (is_list or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"{path.name}: embedding must be a column of lists", got=str(kind))
    widths = pc.unique(pc.list_value_length(column)).to_pylist() if len(column) else []
    if len(widths) != 1:
        raise DataError(
            f"{path.name}: every embedding must have one width",
            got=f"widths {listed(sorted(widths))}",
        )
    return np.asarray(pc.list_flatten(column).to_numpy()).reshape(-1, widths[0])


def _domains(
    path: Path, table: pa.Table, label: Ints, classes: int
) -> tuple[Ints, tuple[str, ...]]:
    if "domain" not in table.column_names:
        return np.zeros(classes, np.int64), (path.stem,)
    named = [str(d) for d in table["domain"].to_pylist()]
    return domains_by_row(path.name, label, named, classes)


def _text_rows(
    path: Path, x: Floats, label: Ints, rows: Ints, classes: int
) -> tuple[Floats, NDArray[np.bool_]]:
    text = np.zeros((classes, x.shape[1]), np.float32)
    has_text = np.zeros(classes, bool)
    repeated = [c for c, n in enumerate(np.bincount(label[rows], minlength=1)) if n > 1]
    if repeated:
        raise DataError(f"{path.name}: more than one text row for labels {listed(repeated)}")
    text[label[rows]] = x[rows]
    has_text[label[rows]] = True
    return text, has_text
