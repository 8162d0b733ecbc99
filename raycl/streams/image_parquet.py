"""Reads sets of images from Parquet: one row per image, encoded as it was in its file.

Columns `image` (bytes, or Hugging Face's struct with `bytes`), `label`, and optionally
`split`, `domain`, `path` and `class_name`. Class names come from `class_name`, else from
the schema's metadata key `classnames` (one a line) or the names that Hugging Face keeps
there, else from labels that are text. The images themselves are read when the first one
is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from raycl.errors import DataError
from raycl.streams.decoding import CorruptImageError, decode
from raycl.streams.encoded import EncodedColumn, holds_bytes
from raycl.streams.folders import SPLITS
from raycl.streams.image_set import LabelledImages
from raycl.streams.labels import domains_by_row, names_by_row
from raycl.streams.shards import names_in_metadata
from raycl.streams.source import Ints, listed
from raycl.streams.splitting import rows_by_class, set_aside

REQUIRED = ("image", "label")
OPTIONAL = ("split", "domain", "path", "class_name")


def read_image_parquet(path: Path, test_fraction: float) -> LabelledImages:
    """The images of one file, split as it says or, where it does not say, by us."""
    table, names_in_schema = _without_images(path)
    label, names = _labels(path, table, names_in_schema)
    pictures = ParquetPictures(path, _texts(table, "path"))
    splits = _splits(path, table)
    if splits is None:
        splits = _our_splits(pictures, label, len(names), test_fraction)
    named = _texts(table, "domain")
    if named is None or not all(named):
        named = [path.stem] * len(label)
    class_domain, domains = domains_by_row(path.name, label, named, len(names))
    return LabelledImages(
        name=path.stem,
        class_names=names,
        class_domain=class_domain,
        domains=domains,
        labels=label,
        splits=splits,
        pictures=pictures,
    )


class ParquetPictures:
    """The bytes of each row, read when asked for, and each one's name."""

    def __init__(self, path: Path, names: Sequence[str] | None) -> None:
        self.path = path
        self.names = names
        self._column = EncodedColumn(path, "image")

    def place(self, row: int) -> str:
        name = self.names[row] if self.names is not None else ""
        return f"{self.path}, row {row}" + (f" ({name})" if name else "")

    def image(self, row: int) -> Image.Image:
        return decode(self.encoded(row), self.place(row))

    def encoded(self, row: int) -> bytes:
        """The image file in a row, as it is stored."""
        data = self._column.get(row)
        if data is None:
            raise CorruptImageError(self.place(row), "it is empty")
        return data


def _without_images(path: Path) -> tuple[pa.Table, list[str]]:
    """All columns but the images, and the class names of the schema's metadata."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            _refuse_other_schema(path, schema)
            wanted = [c for c in ("label", *OPTIONAL) if c in schema.names]
            table = file.read(columns=wanted, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path.name} is not a readable Parquet file", got=str(path), do=str(error)
        ) from error
    if len(table) == 0:
        raise DataError(f"{path.name} holds no image", got="0 rows")
    return table, _names_in_schema(schema.metadata or {})


def _names_in_schema(metadata: Mapping[bytes, bytes]) -> list[str]:
    """The lines of `classnames`, or what Hugging Face writes down; none where neither is."""
    listing = metadata.get(b"classnames", b"").decode("utf-8", "replace")
    if listing.strip():
        return listing.rstrip("\n").split("\n")
    return names_in_metadata(metadata, "label")


def _refuse_other_schema(path: Path, schema: pa.Schema) -> None:
    missing = [name for name in REQUIRED if name not in schema.names]
    if missing:
        is_vectors = "embedding" in schema.names
        raise DataError(
            f"{path.name} lacks the columns {', '.join(missing)}",
            got=f"columns {listed(schema.names)}",
            do=f"it holds vectors: read it with embeddings:{path}"
            if is_vectors
            else f"an image set holds {', '.join(REQUIRED)}",
        )
    if not holds_bytes(schema.field("image").type):
        raise DataError(
            f"{path.name}: image must be a column of bytes, each an image file",
            got=str(schema.field("image").type),
        )


def _texts(table: pa.Table, column: str) -> list[str] | None:
    """A column as text, nulls as none; None where there is no such column."""
    if column not in table.column_names:
        return None
    return [str(value or "") for value in table[column].to_pylist()]


def _labels(path: Path, table: pa.Table, in_schema: list[str]) -> tuple[Ints, tuple[str, ...]]:
    column = table["label"]
    if column.null_count:
        raise DataError(f"{path.name}: {column.null_count} images have no label")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = column.to_pylist()
        names = tuple(sorted(set(texts)))
        number = {name: c for c, name in enumerate(names)}
        return np.asarray([number[text] for text in texts], np.int64), names
    if not pa.types.is_integer(column.type):
        raise DataError(
            f"{path.name}: label must be whole numbers or class names", got=str(column.type)
        )
    label = column.to_numpy().astype(np.int64)
    by_row = _texts(table, "class_name")
    names = names_by_row(path.name, label, by_row) if by_row is not None else tuple(in_schema)
    _refuse_nameless(path, label, names)
    return label, names


def _refuse_nameless(path: Path, label: Ints, names: tuple[str, ...]) -> None:
    if not names:
        raise DataError(
            f"{path.name} says nowhere what its classes are called",
            do="add a column class_name, or the names, one a line, "
            "as the schema's metadata classnames",
        )
    outside = np.flatnonzero((label < 0) | (label >= len(names)))
    if len(outside):
        raise DataError(
            f"{path.name}: {len(outside)} labels lie outside the list of {len(names)} classes",
            got=f"label {label[outside[0]]} at row {outside[0]}",
            do="labels count from 0 into the class names",
        )
    blank = [c for c, name in enumerate(names) if not name.strip()]
    if blank:
        raise DataError(f"{path.name}: classes without a name", got=f"labels {listed(blank)}")


def _splits(path: Path, table: pa.Table) -> NDArray[np.str_] | None:
    """The split of each row; None where the file leaves it to us."""
    said = _texts(table, "split")
    if said is None or not any(said):
        return None
    words = [word.strip().lower() for word in said]
    unknown = sorted(set(words) - set(SPLITS))
    if "" in unknown:
        raise DataError(
            f"{path.name}: some rows name a split and others none",
            got=f"{words.count('')} of {len(words)} rows without one",
            do="name the split of every row, or of none to have a share set aside",
        )
    if unknown:
        raise DataError(
            f"{path.name}: unknown split", got=listed(unknown), do=f"use {', '.join(SPLITS)}"
        )
    return np.asarray([SPLITS[word] for word in words])


def _our_splits(
    pictures: ParquetPictures, label: Ints, classes: int, fraction: float
) -> NDArray[np.str_]:
    """By the hash of each image's path or, where paths do not tell them apart, its bytes."""
    names = pictures.names
    if names is None or "" in names or len(set(names)) < len(names):
        names = [_fingerprint(pictures, row) for row in range(len(label))]
    splits = np.full(len(label), "train")
    for rows in rows_by_class(label, classes):
        splits[rows[set_aside([names[row] for row in rows], fraction)]] = "test"
    return splits


def _fingerprint(pictures: ParquetPictures, row: int) -> str:
    try:
        return hashlib.sha256(pictures.encoded(row)).hexdigest()
    except CorruptImageError:
        return ""
