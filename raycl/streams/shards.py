"""Reads what Hugging Face's `datasets` writes: Parquet or Arrow files, named by split.

    data/train-00000-of-00002.parquet        a repository of the hub
    train/0000.parquet                       its conversion to Parquet
    train/data-00000-of-00001.arrow          save_to_disk

Guarantees the order of file names; no image is opened, and of images no more than a few row
groups are held. Where there is no test split, the validation split is the test set, and said
to be; where there is neither, a share of each class is set aside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from raycl.errors import DataError
from raycl.streams.decoding import CorruptImageError, decode
from raycl.streams.encoded import EncodedColumn, holds_bytes, read_arrow
from raycl.streams.image_set import LabelledImages
from raycl.streams.shard_files import Shard, find_shards
from raycl.streams.source import Ints, listed
from raycl.streams.splitting import rows_by_class, set_aside

LABELS = ("label", "labels", "fine_label", "class")
"""What a column of labels is called, where several columns hold classes."""


def read_shards(
    folder: Path,
    name: str,
    test_fraction: float,
    *,
    image: str | None = None,
    label: str | None = None,
) -> LabelledImages:
    """The images of a data set in such files."""
    shards, warnings = _chosen(find_shards(folder), name)
    schemas = [_schema(shard.path) for shard in shards]
    label = _label_column(schemas[0], label, name)
    for shard, schema in zip(shards, schemas, strict=True):
        image = _image_column(shard.path, schema, image)
    assert image is not None
    tables = [_labels_of(shard.path, label) for shard in shards]
    labels, names = _numbered(name, tables, names_in_metadata(schemas[0].metadata or {}, label))
    splits = np.repeat(
        np.asarray([shard.split or "" for shard in shards], "U5"), [len(t) for t in tables]
    )
    splits, labels, shards, warnings = _without_unlabelled(name, splits, labels, shards, warnings)
    pictures = ShardPictures(tuple(s.path for s in shards), image, tuple(len(t) for t in tables))
    splits = _with_test(name, splits, labels, len(names), test_fraction, pictures, warnings)
    rows = np.flatnonzero(labels >= 0)
    return LabelledImages(
        name=name,
        class_names=names,
        class_domain=np.zeros(len(names), np.int64),
        domains=(name,),
        labels=labels[rows],
        splits=splits[rows],
        pictures=pictures if len(rows) == len(labels) else _Some(pictures, rows),
        warnings=tuple(warnings),
    )


def _chosen(shards: list[Shard], name: str) -> tuple[list[Shard], list[str]]:
    """The files of splits that count; others are told."""
    if not any(shard.split for shard in shards):
        return shards, []
    left = sorted({shard.other or shard.path.name for shard in shards if shard.split is None})
    said = [f"{name}: left out are files of no split that counts: {listed(left)}"] if left else []
    return [shard for shard in shards if shard.split], said


def _without_unlabelled(
    name: str, splits: Any, labels: Ints, shards: list[Shard], warnings: list[str]
) -> tuple[Any, Ints, list[Shard], list[str]]:
    """A split whose labels are all -1 is one of a hidden test set: not there."""
    for split in ("test", "val"):
        own = splits == split
        if own.any() and (labels[own] < 0).all():
            warnings = [*warnings, f"{name}: the split {split} has no labels and is left out"]
            splits = np.where(own, "none", splits)
    unlabelled = np.flatnonzero((labels < 0) & (splits != "none"))
    if len(unlabelled):
        raise DataError(
            f"{name}: {len(unlabelled)} images have no label", got=f"row {unlabelled[0]}"
        )
    return splits, labels, shards, warnings


def _with_test(
    name: str,
    splits: Any,
    labels: Ints,
    classes: int,
    fraction: float,
    pictures: ShardPictures,
    warnings: list[str],
) -> NDArray[np.str_]:
    if (splits == "test").any():
        return np.asarray(splits)
    if (splits == "val").any():
        warnings.append(f"{name}: its validation split is the test set, for it has no other")
        return np.where(splits == "val", "test", splits)
    warnings.append(
        f"development: {name} has no test split, and a share of each class is set aside"
    )
    out = np.where(splits == "none", splits, "train")
    usable = np.where(labels >= 0, labels, classes)
    for rows in rows_by_class(usable, classes + 1)[:classes]:
        names = [pictures.short_place(int(row)) for row in rows]
        out[rows[set_aside(names, fraction)]] = "test"
    return out


class ShardPictures:
    """The images of several files, one after the other."""

    def __init__(self, paths: tuple[Path, ...], column: str, lengths: tuple[int, ...]) -> None:
        self.paths, self.column = paths, column
        self._starts = np.cumsum([0, *lengths])[:-1]

    @cached_property
    def _columns(self) -> tuple[EncodedColumn, ...]:
        return tuple(EncodedColumn(path, self.column) for path in self.paths)

    def _part(self, row: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return part, row - int(self._starts[part])

    def place(self, row: int) -> str:
        part, inner = self._part(row)
        return f"{self.paths[part]}, row {inner}"

    def short_place(self, row: int) -> str:
        """The same, wherever the folder lies."""
        part, inner = self._part(row)
        return f"{self.paths[part].name}, row {inner}"

    def image(self, row: int) -> Image.Image:
        part, inner = self._part(row)
        data = self._columns[part].get(inner)
        if data is None:
            raise CorruptImageError(
                self.place(row), "it is empty, or lies in a file beside, which is not followed"
            )
        return decode(data, self.place(row))


@dataclass(frozen=True, eq=False)
class _Some:
    """Some of the pictures, by their rows."""

    pictures: ShardPictures
    rows: Ints

    def place(self, row: int) -> str:
        return self.pictures.place(int(self.rows[row]))

    def image(self, row: int) -> Image.Image:
        return self.pictures.image(int(self.rows[row]))


def _schema(path: Path) -> pa.Schema:
    try:
        if path.suffix == ".arrow":
            return read_arrow(path).schema
        with pq.ParquetFile(path) as file:
            return file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path.name} is not readable: {error}", got=str(path), do="fetch it again")


def _image_column(path: Path, schema: pa.Schema, asked: str | None) -> str:
    able = [field.name for field in schema if holds_bytes(field.type)]
    if asked in able:
        return str(asked)
    if asked is not None or len(able) != 1:
        raise DataError(
            f"{path.name} has {'no' if not able else 'more than one'} column of image files"
            if asked is None
            else f"{path.name} has no column of image files called {asked}",
            got=f"columns {listed(schema.names)}",
            do=f"set stream.image to one of {', '.join(able)}"
            if able
            else "vectors are read with embeddings:FILE; images must be stored as bytes",
        )
    return str(able[0])


def _label_column(schema: pa.Schema, asked: str | None, name: str) -> str:
    if asked is not None and asked in schema.names:
        return asked
    classes = list(_class_features(schema.metadata or {}))
    found = [label for label in LABELS if label in schema.names]
    if asked is None and (found or len(classes) == 1):
        return found[0] if found else classes[0]
    raise DataError(
        f"{name} has no column of labels" + (f" called {asked}" if asked else " that is plain"),
        got=f"columns {listed(schema.names)}",
        do=f"set stream.label to one of {', '.join(classes or schema.names)}",
    )


def _class_features(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The columns that Hugging Face knows for classes, and the names of those."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            str(column): [str(n) for n in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def names_in_metadata(metadata: Mapping[bytes, bytes], label: str) -> list[str]:
    """What Hugging Face keeps of the names of a column's classes; none where it is not there."""
    return _class_features(metadata).get(label, [])


def _labels_of(path: Path, label: str) -> pa.ChunkedArray:
    try:
        if path.suffix == ".arrow":
            column = read_arrow(path)[label]
        else:
            with pq.ParquetFile(path) as file:
                column = file.read(columns=[label], use_threads=False)[label]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _unreadable(path, error) from error
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        raise DataError(f"{path.name}: {column.null_count} images have no label", got=str(path))
    return column


def _numbered(
    name: str, columns: Sequence[pa.ChunkedArray], names: list[str]
) -> tuple[Ints, tuple[str, ...]]:
    """Labels as numbers, and what the classes are called."""
    values = [value for column in columns for value in column.to_pylist()]
    if all(isinstance(value, str) for value in values):
        texts = names or sorted(set(values))
        number = {text: c for c, text in enumerate(texts)}
        strange = sorted(set(values) - number.keys())
        if strange:
            raise DataError(f"{name}: labels that are no class", got=listed(strange))
        return np.asarray([number[v] for v in values], np.int64), _spoken(texts)
    if not all(isinstance(value, int) for value in values):
        raise DataError(f"{name}: labels must be whole numbers or class names")
    labels = np.asarray(values, np.int64)
    if not names:
        raise DataError(
            f"{name} says nowhere what its classes are called",
            do="write the files with a ClassLabel feature, or with labels that are names",
        )
    outside = np.flatnonzero(labels >= len(names))
    if len(outside):
        raise DataError(
            f"{name}: {len(outside)} labels lie outside the list of {len(names)} classes",
            got=f"label {labels[outside[0]]} at row {outside[0]}",
        )
    return labels, _spoken(names)


def _spoken(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(" ".join(name.replace("_", " ").split()) or name for name in names)
