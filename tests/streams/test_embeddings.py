"""Embedding sets: two formats with one meaning, and every fault named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raycl.config.experiment import Experiment
from raycl.config.methods import NCM
from raycl.config.streams import EmbeddingsStream, Validation
from raycl.errors import ConfigError, DataError
from raycl.streams.content import content_digests, resolve_path
from raycl.streams.embeddings import read_embeddings
from raycl.streams.stream import Stream, build, read_source
from tests.streams.made_sets import CLASSES, arrays, as_table, save_npz, save_parquet


def stream_of(*paths: Path, **options: Any) -> Stream:
    validation = options.pop("validation", Validation())
    spec = EmbeddingsStream(paths=tuple(map(str, paths)), **options)
    experiment = Experiment(method=NCM(), stream=spec, validation=validation)
    return build(experiment.resolved(), read_source(spec))


def test_npz_and_parquet_mean_the_same(tmp_path: Path) -> None:
    values = arrays(val=3)
    values["text_has"][2] = False
    values["text"][2] = 0
    npz = read_embeddings(save_npz(tmp_path / "set.npz", values))
    parquet = read_embeddings(save_parquet(tmp_path / "set.parquet", values))
    for split in ("train", "validation", "test"):
        assert np.array_equal(getattr(npz, split).x, getattr(parquet, split).x)
        assert np.array_equal(getattr(npz, split).y, getattr(parquet, split).y)
    assert npz.class_names == parquet.class_names
    assert np.array_equal(npz.text, parquet.text)
    assert np.array_equal(npz.has_text, parquet.has_text)


def broken(**changes: Any) -> dict[str, Any]:
    values = arrays()
    for name, change in changes.items():
        change(values[name]) if callable(change) else values.__setitem__(name, change)
    return values


def _set(index: Any, value: Any) -> Any:
    return lambda array: array.__setitem__(index, value)


FAULTS = {
    "nan": (broken(train_x=_set((3, 2), np.nan)), ["train", "1 vectors hold NaN", "rows 3"]),
    "infinite": (broken(test_x=_set((0, 0), np.inf)), ["test", "NaN or infinity"]),
    "zero": (broken(train_x=_set(1, 0)), ["all zero", "rows 1"]),
    "text width": (
        broken(text=np.ones((CLASSES, 8), np.float16)),
        ["text and image vectors differ in width", "text 8, image 16"],
    ),
    "test width": (
        broken(test_x=np.ones((30, 4), np.float16)),
        ["test", "another width", "4 and 16"],
    ),
    "labels": (broken(test_y=_set(0, 9)), ["lie outside the list of 6 classes", "label 9"]),
    "negative": (broken(train_y=_set(0, -1)), ["lie outside", "label -1"]),
    "float labels": (
        broken(train_y=np.zeros(48, np.float32)),
        ["train_y must be a list of whole numbers", "float32"],
    ),
    "lengths": (broken(train_y=np.zeros(3, np.int16)), ["one vector per label", "3 labels"]),
    "flat": (broken(train_x=np.zeros(48, np.float16)), ["train_x must be a table of numbers"]),
    "text rows": (broken(text=np.ones((2, 16), np.float16)), ["2 for 6 classes"]),
    "mask": (broken(text_has=np.ones(2, bool)), ["text_has", "(2,) for 6 classes"]),
    "flat names": (
        broken(classnames=np.array("one")),
        ["classnames must be a list of text", "shape ()"],
    ),
    "numbers for names": (broken(classnames=np.arange(6)), ["classnames must be a list of text"]),
    "a single number": (broken(train_x=np.float32(1)), ["train_x must be a table of numbers"]),
    "no train": (
        broken(train_x=np.zeros((0, 16)), train_y=np.zeros(0, np.int16)),
        ["no training vectors"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_data_is_named(tmp_path: Path, name: str) -> None:
    values, parts = FAULTS[name]
    with pytest.raises(DataError) as caught:
        read_embeddings(save_npz(tmp_path / "set.npz", values))
    assert [part for part in parts if part not in str(caught.value)] == []


def test_pickled_arrays_are_never_opened(tmp_path: Path) -> None:
    values = arrays() | {"classnames": np.array([f"c{i}" for i in range(6)], dtype=object)}
    with pytest.raises(DataError, match="pickled objects, which could run code"):
        read_embeddings(save_npz(tmp_path / "set.npz", values))


@pytest.mark.parametrize("name", ["set.npz", "set.parquet"])
def test_a_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    save = save_npz if name.endswith("npz") else save_parquet
    path = save(tmp_path / name, arrays())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="not a readable"):
        read_embeddings(path)


def test_names_in_bytes_are_text(tmp_path: Path) -> None:
    names = np.array([f"caf\u00e9 {c}".encode() for c in range(CLASSES)])
    source = read_embeddings(save_npz(tmp_path / "set.npz", arrays() | {"classnames": names}))
    assert source.class_names[0] == "café 0"


def test_a_text_file_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not a readable npz file"):
        read_embeddings(tmp_path / "set.npz")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    values = arrays()
    del values["test_y"]
    with pytest.raises(DataError, match="test_x must be a table of numbers"):
        read_embeddings(save_npz(tmp_path / "one.npz", {**arrays(), "test_x": np.float32(1)}))
    with pytest.raises(DataError, match="lacks test_y"):
        read_embeddings(save_npz(tmp_path / "set.npz", values))


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    save_npz(tmp_path / "stanford_cars.npz", arrays())
    with pytest.raises(DataError, match=r"did you mean stanford_cars\.npz"):
        resolve_path(str(tmp_path / "stanford_car.npz"))


def test_the_data_root_is_an_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_npz(tmp_path / "set.npz", arrays())
    monkeypatch.delenv("RAYCL_DATA", raising=False)
    with pytest.raises(DataError, match="RAYCL_DATA, which is not set"):
        resolve_path("$RAYCL_DATA/set.npz")
    monkeypatch.setenv("RAYCL_DATA", str(tmp_path))
    assert resolve_path("${RAYCL_DATA}/set.npz") == resolve_path("$RAYCL_DATA/set.npz") == file


def test_what_belongs_to_another_stream_is_sent_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this is a folder") as caught:
        resolve_path(str(tmp_path))
    assert f"folder:{tmp_path}" in str(caught.value)
    pq.write_table(pa.table({"image": [b""], "label": [0]}), tmp_path / "photos.parquet")
    with pytest.raises(DataError, match="read it with folder:"):
        read_embeddings(tmp_path / "photos.parquet")


def parquet_with(tmp_path: Path, **columns: pa.Array) -> Path:
    table = as_table(arrays())
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "set.parquet")
    return tmp_path / "set.parquet"


def test_parquet_faults_are_named(tmp_path: Path) -> None:
    table = as_table(arrays())
    names = table["class_name"].to_pylist()
    with pytest.raises(DataError, match="label 0 has two class names"):
        read_embeddings(parquet_with(tmp_path, class_name=pa.array(["other", *names[1:]])))
    splits = table["split"].to_pylist()
    with pytest.raises(DataError, match="unknown split"):
        read_embeddings(parquet_with(tmp_path, split=pa.array(["trian", *splits[1:]])))
    with pytest.raises(DataError, match="hold nulls"):
        read_embeddings(parquet_with(tmp_path, split=pa.array([None, *splits[1:]])))
    ragged = pa.array([[1.0], *([[1.0, 2.0]] * (len(table) - 1))])
    with pytest.raises(DataError, match="one width"):
        read_embeddings(parquet_with(tmp_path, embedding=ragged))
    empty = pa.array([[]] * len(table), pa.list_(pa.float32()))
    with pytest.raises(DataError, match="every embedding is empty"):
        read_embeddings(parquet_with(tmp_path, embedding=empty))
    texts = pa.array(["x"] * len(table))
    with pytest.raises(DataError, match="a column of lists"):
        read_embeddings(parquet_with(tmp_path, embedding=texts))
    hashed = pa.array([10**10 * label for label in table["label"].to_pylist()])
    with pytest.raises(DataError, match="no row names the classes 1, 2"):
        read_embeddings(parquet_with(tmp_path, label=hashed))
    pq.write_table(table.drop_columns(["label"]), tmp_path / "less.parquet")
    with pytest.raises(DataError, match="lacks the columns label"):
        read_embeddings(tmp_path / "less.parquet")


def test_an_empty_class_warns_and_a_task_of_it_is_built(tmp_path: Path) -> None:
    values = arrays()
    keep = values["test_y"] != 2
    values["test_x"], values["test_y"] = values["test_x"][keep], values["test_y"][keep]
    stream = stream_of(save_npz(tmp_path / "set.npz", values), tasks=CLASSES)
    assert stream.warnings == ("set: 1 classes have no test sample: thing 2",)
    assert [len(t.test) for t in stream.tasks if t.classes == (2,)] == [0]


def test_joined_domains_are_tasks_in_the_order_they_are_named(tmp_path: Path) -> None:
    a = save_npz(tmp_path / "a.npz", arrays(seed=1))
    b = save_parquet(tmp_path / "b.parquet", arrays(seed=2, classes=3))
    stream = stream_of(b, a)
    assert stream.protocol == "x-tail"
    assert [task.classes for task in stream.tasks] == [(0, 1, 2), tuple(range(3, 9))]
    assert stream.class_names[0] == stream.class_names[3] == "thing 0"
    rows = np.concatenate([task.test.rows for task in stream.tasks])
    assert len(set(rows.tolist())) == len(rows)
    assert stream_of(b, a, tasks=3).protocol == "class-incremental"


def test_joined_domains_must_share_a_width(tmp_path: Path) -> None:
    a = save_npz(tmp_path / "a.npz", arrays())
    narrow = {k: v[:, :4] if v.ndim == 2 else v for k, v in arrays().items()}
    b = save_npz(tmp_path / "b.npz", narrow)
    with pytest.raises(DataError, match="share one vector width"):
        stream_of(a, b)


def test_classes_without_text_can_be_left_out(tmp_path: Path) -> None:
    values = arrays()
    values["text_has"][[1, 4]] = False
    path = save_npz(tmp_path / "set.npz", values)
    assert int((~stream_of(path).has_text).sum()) == 2
    kept = stream_of(path, classes="with_text")
    assert kept.class_names == ("thing 0", "thing 2", "thing 3", "thing 5")
    assert bool(kept.has_text.all())
    values["text_has"][:] = False
    with pytest.raises(DataError, match="no class of bare has a text vector"):
        stream_of(save_npz(tmp_path / "bare.npz", values), classes="with_text")


def test_validation_leaves_every_training_set_unless_refitted(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "set.npz", arrays())
    for refit in (True, False):
        for task in stream_of(path, validation=Validation(refit=refit)).tasks:
            held, fit = set(task.held_out.rows), set(task.fit.rows)
            assert held and not held & fit
            assert set(task.train.rows) == (held | fit if refit else fit)


def test_a_sources_own_validation_is_never_trained_on(tmp_path: Path) -> None:
    values = arrays(val=2)
    for task in stream_of(save_npz(tmp_path / "set.npz", values)).tasks:
        assert set(task.train.rows) == set(task.fit.rows)
        own = torch.from_numpy(values["val_x"].astype(np.float32))
        rows = task.held_out.rows - len(values["train_x"])
        assert torch.equal(task.held_out.x, own[torch.from_numpy(rows)])


def test_class_order_moves_no_samples_shots_or_validation(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "set.npz", arrays(train=9))

    def rows(order_seed: int) -> dict[int, tuple[Any, ...]]:
        out = {}
        stream = stream_of(path, tasks=CLASSES, shots=4, order_seed=order_seed, shot_seed=1)
        for task in stream.tasks:
            parts = (task.train, task.fit, task.held_out, task.test)
            out[task.classes[0]] = tuple(tuple(part.rows) for part in parts)
        return out

    assert rows(1) == rows(2)


def test_more_tasks_than_classes_is_refused(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "set.npz", arrays())
    with pytest.raises(ConfigError, match="more tasks than classes") as caught:
        stream_of(path, tasks=7)
    assert "6 or fewer" in str(caught.value)


def test_contents_are_digests_of_bytes(tmp_path: Path) -> None:
    a = save_npz(tmp_path / "a.npz", arrays())
    b = tmp_path / "b.npz"
    b.write_bytes(a.read_bytes())
    one, other = (content_digests(EmbeddingsStream(paths=(str(p),))) for p in (a, b))
    assert one == other
    save_npz(b, arrays(seed=3))
    assert content_digests(EmbeddingsStream(paths=(str(b),))) != one
