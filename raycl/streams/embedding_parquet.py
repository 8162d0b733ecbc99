"""Reads vectors from Parquet, as raycl and as other tools write it.

Columns `embedding` (a list of numbers of one length, in any of Arrow's shapes), `label` (whole
numbers from 0, or class names), and optionally `class_name`, `split` and `domain`; each may be
called otherwise. `split` is train, test, val or text: a `text` row holds the text vector of its
class. Without splits a share of each class is set aside, and said to be. What cannot be read is
told with the one option, or the one line, that mends it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raycl.config.streams import Columns
from raycl.errors import DataError
from raycl.streams.folders import SPLITS
from raycl.streams.labels import domains_by_row, names_by_row
from raycl.streams.shards import names_in_metadata
from raycl.streams.source import Floats, Ints, Source, Table, listed
from raycl.streams.splitting import rows_by_class, set_aside

_SPLITS = {**SPLITS, "dev": "val", "text": "text"}
_SPREAD = 8
"""Columns of numbers from which on a vector is taken to be spread over them."""


def read_embedding_parquet(path: Path, columns: Columns, share: float) -> Source:
    """The source in one file, not yet checked."""
    table = _load(path, columns)
    x = floats(path, "embedding", _matrix(path, table["embedding"]))
    label, names, warnings = _labels(path, table)
    split = _splits(path, table)
    if split is None:
        split = _set_aside(x, label, len(names), share)
        warnings.append(
            f"development: {path.stem} names no split, and a share of each class is set aside"
        )
    domain_of_class, domains = _domains(path, table, label, len(names))
    rows = {name: np.flatnonzero(split == name) for name in ("train", "val", "test", "text")}
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
        warnings=tuple(warnings),
    )


def floats(path: Path, key: str, values: NDArray[Any]) -> Floats:
    """A table of numbers, one vector per row."""
    if values.dtype.kind not in "fiu" or values.ndim != 2:
        raise DataError(
            f"{path.name}: {key} must be a table of numbers, one vector per row",
            got=f"{values.dtype} of shape {values.shape}",
        )
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which the check names
        return np.ascontiguousarray(values, dtype=np.float32)


def _load(path: Path, columns: Columns) -> pa.Table:
    """The columns that count, under our names."""
    try:
        # Not read_table: it brings in pandas, and threads that may outlive the interpreter.
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            wanted = _wanted(path, schema, columns)
            table = file.read(columns=list(wanted.values()), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is not a readable Parquet file", do=str(error)) from error
    if not len(table):
        raise DataError(f"{path.name} holds no vector", got="0 rows")
    table = pa.table({ours: table[theirs] for ours, theirs in wanted.items()})
    table = table.replace_schema_metadata(schema.metadata)
    empty = [wanted[name] for name in table.column_names if table[name].null_count]
    if empty:
        raise DataError(
            f"{path.name}: the columns {', '.join(empty)} hold nulls",
            got=listed(
                f"{table[n].null_count} in {wanted[n]}" for n in wanted if wanted[n] in empty
            ),
            do="leave those rows out",
        )
    return table


def _wanted(path: Path, schema: pa.Schema, columns: Columns) -> dict[str, str]:
    """Our names of the columns that are there, and theirs."""
    asked = {name: str(getattr(columns, name)) for name in type(columns).model_fields}
    defaults = Columns()
    absent = [
        ours
        for ours, theirs in asked.items()
        if theirs not in schema.names
        and (ours in ("embedding", "label") or theirs != getattr(defaults, ours))
    ]
    if absent:
        raise DataError(
            f"{path.name} lacks the columns {', '.join(asked[name] for name in absent)}",
            got=f"columns {listed(schema.names)}",
            do=_remedy(path, schema, absent),
        )
    return {ours: theirs for ours, theirs in asked.items() if theirs in schema.names}


def _remedy(path: Path, schema: pa.Schema, absent: Sequence[str]) -> str:
    """What to do about columns that are not there, as far as the others tell."""
    if "image" in schema.names and "embedding" in absent:
        return f"it holds images: read it with folder:{path}"
    lists = [field.name for field in schema if _is_list(field.type)]
    numbers = [field.name for field in schema if pa.types.is_floating(field.type)]
    plain = [field.name for field in schema if _is_class(field.type)]
    hints = []
    for name in absent:
        if name == "embedding" and not lists and len(numbers) >= _SPREAD:
            return (
                f"each vector is spread over {len(numbers)} columns ({listed(numbers)}): write "
                "one column of lists, e.g. pa.table({'embedding': list(df[columns].to_numpy()), …})"
            )
        able = {"embedding": lists}.get(name, plain)
        hints.append(
            f"name it: --set stream.columns.{name}={able[0]}"
            + (f" (or {', '.join(able[1:4])})" if len(able) > 1 else "")
            if able
            else f"add a column {name}"
        )
    return "; ".join(hints)


def _is_list(kind: pa.DataType) -> bool:
    kind = getattr(kind, "storage_type", kind)
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_class(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_dictionary(kind)
    )


def _matrix(path: Path, column: pa.ChunkedArray) -> NDArray[Any]:
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks])
    if not _is_list(column.type):
        raise DataError(f"{path.name}: embedding must be a column of lists", got=str(column.type))
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(widths) != 1:
        raise DataError(
            f"{path.name}: every embedding must have one width",
            got=f"widths {listed(sorted(widths))}",
        )
    if not widths[0]:
        raise DataError(f"{path.name}: every embedding is empty", got="lists of no number")
    flat = pc.list_flatten(column)
    if _is_list(flat.type):
        raise DataError(
            f"{path.name}: an embedding is a list of numbers, not a list of lists",
            got=str(column.type),
            do="flatten each, or keep the one row that is meant",
        )
    return np.asarray(flat.to_numpy()).reshape(-1, widths[0])


def _labels(path: Path, table: pa.Table) -> tuple[Ints, tuple[str, ...], list[str]]:
    """The class id of each row, the names of the classes, and what is odd."""
    column = _plain(table["label"])
    by_row = None
    if "class_name" in table.column_names:
        by_row = [str(name) for name in _plain(table["class_name"]).to_pylist()]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = column.to_pylist()
        number = {text: c for c, text in enumerate(sorted(set(texts)))}
        label = np.asarray([number[text] for text in texts], np.int64)
        return label, names_by_row(path.name, label, by_row or texts), []
    if not pa.types.is_integer(column.type):
        raise DataError(
            f"{path.name}: label must be whole numbers or class names",
            got=str(column.type),
            do="cast it: df['label'].astype(int)",
        )
    label = column.to_numpy().astype(np.int64)
    if by_row is not None:
        return label, names_by_row(path.name, label, by_row), []
    told = names_in_metadata(table.schema.metadata or {}, "label")
    numbered = names_by_row(path.name, label, [f"class {c}" for c in label.tolist()])
    if told and len(told) >= len(numbered):
        return label, tuple(told), []
    return (
        label,
        numbered,
        [f"{path.stem} says nowhere what its classes are called: they are called by their numbers"],
    )


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without the dictionary that pandas' categories are written with."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _splits(path: Path, table: pa.Table) -> NDArray[np.str_] | None:
    """The split of each row; None where the file does not say."""
    if "split" not in table.column_names:
        return None
    said = [str(word) for word in _plain(table["split"]).to_pylist()]
    unknown = sorted({word for word in said if word.strip().lower() not in _SPLITS})
    if unknown:
        raise DataError(
            f"{path.name}: unknown split",
            got=listed(unknown),
            do="use train, test, val or text",
        )
    return np.asarray([_SPLITS[word.strip().lower()] for word in said])


def _set_aside(x: Floats, label: Ints, classes: int, share: float) -> NDArray[np.str_]:
    """Rows for testing by the hash of their vectors, so that no order of rows moves them."""
    split = np.full(len(label), "train")
    for rows in rows_by_class(label, classes):
        names = [hashlib.sha256(x[row].tobytes()).hexdigest() for row in rows]
        split[rows[set_aside(names, share)]] = "test"
    return split


def _domains(
    path: Path, table: pa.Table, label: Ints, classes: int
) -> tuple[Ints, tuple[str, ...]]:
    if "domain" not in table.column_names:
        return np.zeros(classes, np.int64), (path.stem,)
    named = [str(d) for d in _plain(table["domain"]).to_pylist()]
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
