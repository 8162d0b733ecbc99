"""Parquet files of vectors as other tools write them: read as they are, or told what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl.config.loading import load
from raycl.config.streams import Columns, EmbeddingsStream
from raycl.errors import DataError
from raycl.streams.embeddings import read_embeddings
from raycl.streams.source import Source
from raycl.streams.stream import read_source
from tests.streams.made_sets import CLASSES, WIDTH, arrays, as_table

VALUES = arrays()


def save(path: Path, **columns: Any) -> Path:
    """The usual table with some columns replaced, or left out where None."""
    table = as_table(VALUES)
    for name, column in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        if column is not None:
            table = table.append_column(name, column)
    pq.write_table(table, path)
    return path


def column(name: str) -> Any:
    return as_table(VALUES)[name].to_pylist()


def vectors() -> Any:
    return np.asarray(column("embedding"), np.float64)


def same(one: Source, other: Source) -> bool:
    pairs = ((one.train, other.train), (one.test, other.test))
    return all(
        np.array_equal(a.x, b.x) and np.array_equal(a.y, b.y) for a, b in pairs
    ) and np.array_equal(one.text, other.text)


def tensor() -> pa.ExtensionArray:
    kind = pa.fixed_shape_tensor(pa.float32(), [WIDTH])
    flat = pa.array(vectors().astype(np.float32).reshape(-1))
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(flat, WIDTH))


SHAPES: dict[str, Callable[[], Any]] = {
    "a list": lambda: pa.array(vectors().tolist(), pa.list_(pa.float32())),
    "a large list": lambda: pa.array(vectors().tolist(), pa.large_list(pa.float32())),
    "a fixed list of doubles": lambda: pa.array(vectors().tolist(), pa.list_(pa.float64(), WIDTH)),
    "a list of doubles": lambda: pa.array(vectors().tolist()),
    "a tensor": tensor,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_vectors_of_every_shape_are_the_same(tmp_path: Path, shape: str) -> None:
    plain = read_embeddings(save(tmp_path / "plain.parquet"))
    other = read_embeddings(save(tmp_path / "other.parquet", embedding=SHAPES[shape]()))
    assert same(plain, other) and other.train.x.dtype == np.float32


def test_labels_may_be_names_or_categories(tmp_path: Path) -> None:
    names = pa.array(column("class_name"))
    for label in (names, names.dictionary_encode(), names.cast(pa.large_string())):
        source = read_embeddings(save(tmp_path / "set.parquet", label=label, class_name=None))
        assert source.class_names == tuple(f"thing {c}" for c in range(CLASSES))
        assert same(source, read_embeddings(save(tmp_path / "plain.parquet")))


def test_splits_have_many_spellings(tmp_path: Path) -> None:
    words = {"train": "TRAIN", "test": "Test", "val": "validation", "text": "text"}
    split = pa.array([words[word] for word in column("split")]).dictionary_encode()
    assert same(
        read_embeddings(save(tmp_path / "other.parquet", split=split)),
        read_embeddings(save(tmp_path / "plain.parquet")),
    )


def no_text() -> pa.Table:
    table = as_table(VALUES)
    return table.filter(pa.compute.field("split") != "text")


def test_without_splits_a_share_is_set_aside_by_the_vectors_themselves(tmp_path: Path) -> None:
    table = no_text().drop_columns(["split"])
    pq.write_table(table, tmp_path / "a.parquet")
    source = read_embeddings(tmp_path / "a.parquet")
    assert np.bincount(source.test.y).tolist() == [3] * CLASSES, "a fifth of 13, rounded"
    assert np.bincount(source.train.y).tolist() == [10] * CLASSES
    assert not source.has_text.any()
    assert source.warnings[0].startswith("development: a names no split")
    pq.write_table(
        table.take(np.random.default_rng(0).permutation(len(table))), tmp_path / "b.parquet"
    )
    shuffled = read_embeddings(tmp_path / "b.parquet")
    rows = {tuple(x) for x in source.test.x.tolist()}
    assert {tuple(x) for x in shuffled.test.x.tolist()} == rows
    half = read_source(EmbeddingsStream(paths=(str(tmp_path / "a.parquet"),), test_fraction=0.5))
    assert np.bincount(half.test.y).tolist() == [6] * CLASSES


def test_numbers_without_names_are_classes_by_number(tmp_path: Path) -> None:
    source = read_embeddings(save(tmp_path / "set.parquet", class_name=None))
    assert source.class_names == tuple(f"class {c}" for c in range(CLASSES))
    assert "called by their numbers" in source.warnings[0]


def test_columns_may_be_called_otherwise(tmp_path: Path) -> None:
    table = as_table(VALUES).rename_columns(["vector", "target", "name", "fold"])
    pq.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(DataError) as caught:
        read_embeddings(tmp_path / "set.parquet")
    said = str(caught.value)
    assert "lacks the columns embedding, label" in said
    assert "--set stream.columns.embedding=vector" in said
    assert "--set stream.columns.label=target (or name, fold)" in said
    columns = Columns(embedding="vector", label="target", class_name="name", split="fold")
    named = read_embeddings(tmp_path / "set.parquet", columns)
    assert same(named, read_embeddings(save(tmp_path / "plain.parquet")))
    tree = {"stream": f"embeddings:{tmp_path / 'set.parquet'}", "method": "ncm"}
    setting = {"stream": {"columns": {"embedding": "vector", "label": "target"}}}
    stream = load([tree, setting]).experiment.stream
    assert isinstance(stream, EmbeddingsStream) and stream.columns.label == "target"
    with pytest.raises(DataError, match=r"stream\.columns\.split=fold|lacks the columns folds"):
        read_embeddings(tmp_path / "set.parquet", columns.model_copy(update={"split": "folds"}))


def spread() -> pa.Table:
    plain = no_text().drop_columns(["embedding"])
    x = vectors()[: len(plain)]
    for i in range(WIDTH):
        plain = plain.append_column(f"f{i}", pa.array(x[:, i]))
    return plain


FAULTS: dict[str, tuple[Callable[[], pa.Table], list[str]]] = {
    "spread": (spread, ["lacks the columns embedding", "spread over 16 columns", "f0, f1"]),
    "no label": (
        lambda: as_table(VALUES).drop_columns(["label", "class_name", "split"]),
        ["lacks the columns label", "add a column label"],
    ),
    "labels are floats": (
        lambda: as_table(VALUES).set_column(
            1, "label", pa.array([float(c) for c in column("label")])
        ),
        ["label must be whole numbers or class names", "got double", "astype(int)"],
    ),
    "labels from one": (
        lambda: as_table(VALUES).set_column(1, "label", pa.array([c + 1 for c in column("label")])),
        ["no row names the classes 0"],
    ),
    "nulls": (
        lambda: as_table(VALUES).set_column(
            1, "label", pa.array([None, *column("label")[1:]], pa.int64())
        ),
        ["the columns label hold nulls", "1 in label"],
    ),
    "lists of lists": (
        lambda: as_table(VALUES).set_column(
            0, "embedding", pa.array([[row] for row in vectors().tolist()])
        ),
        ["not a list of lists"],
    ),
    "no rows": (lambda: as_table(VALUES).slice(0, 0), ["holds no vector"]),
    "a split of another name": (
        lambda: as_table(VALUES).set_column(
            3, "split", pa.array(["holdout", *column("split")[1:]])
        ),
        ["unknown split", "got holdout", "train, test, val or text"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_told_with_what_mends_it(tmp_path: Path, fault: str) -> None:
    make, parts = FAULTS[fault]
    pq.write_table(make(), tmp_path / "set.parquet")
    with pytest.raises(DataError) as caught:
        read_embeddings(tmp_path / "set.parquet")
    assert [part for part in parts if part not in str(caught.value)] == []
