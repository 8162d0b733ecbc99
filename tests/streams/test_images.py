"""From images to a stream of tasks: features in, everything else as for given vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raycl.config.experiment import Experiment
from raycl.config.methods import NCM
from raycl.config.streams import DigitsStream, FolderStream, ImageStream, TinyXtailStream
from raycl.errors import ConfigError, DataError
from raycl.streams.images import ImageSet, read_images, source_of_features
from raycl.streams.stream import Stream, build
from tests.streams.made_images import save_folder

WIDTH = 6


def features(images: ImageSet, rows: np.ndarray | None = None) -> dict[str, Any]:
    """Vectors whose first number tells the row they are of."""
    rows = np.arange(len(images)) if rows is None else rows
    x = np.ones((len(rows), WIDTH), np.float32)
    x[:, 0] = rows
    return {"x": x, "kept_rows": rows, "text": np.ones((len(images.class_names), WIDTH), "f4")}


def stream_of(spec: ImageStream) -> Stream:
    images = read_images(spec)
    source = source_of_features(images, **features(images))
    return build(Experiment(method=NCM(), stream=spec).resolved(), source)


def test_vectors_keep_their_labels_and_splits(tmp_path: Path) -> None:
    counts = {"train/a": 4, "train/b": 3, "test/a": 2, "test/b": 2, "val/a": 1}
    spec = FolderStream(paths=(str(save_folder(tmp_path / "set", counts)),))
    images = read_images(spec)
    source = source_of_features(images, **features(images))
    for table, split in (
        (source.train, "train"),
        (source.validation, "val"),
        (source.test, "test"),
    ):
        rows = np.flatnonzero(images.splits == split)
        assert table.x[:, 0].tolist() == rows.tolist()
        assert table.y.tolist() == images.labels[rows].tolist()
    assert source.class_names == ("a", "b") and source.has_text.all()
    assert source.name == "set" and source.domains == ("set",)


def test_rows_that_are_left_out_leave_the_others_in_place() -> None:
    images = read_images(DigitsStream())
    kept = np.delete(np.arange(len(images)), [0, 5, 1500])
    source = source_of_features(images, **features(images, kept))
    assert (len(source.train), len(source.test)) == (1195, 599)
    assert source.train.y.tolist() == images.labels[kept[:1195]].tolist()
    assert source.test.x[:, 0].tolist() == kept[1195:].tolist()


def test_vectors_that_cannot_be_used_are_refused() -> None:
    images = read_images(DigitsStream())
    made = features(images)
    made["x"][3, 2] = np.nan
    with pytest.raises(DataError, match="digits, train: 1 vectors hold NaN"):
        source_of_features(images, **made)
    made = features(images)
    made["text"] = made["text"][:, :2]
    with pytest.raises(DataError, match="differ in width"):
        source_of_features(images, **made)
    train = np.flatnonzero(images.splits == "train")
    with pytest.raises(DataError, match="no test vectors"):
        source_of_features(images, **features(images, train))


def test_warnings_of_the_images_are_those_of_the_stream(tmp_path: Path) -> None:
    root = save_folder(tmp_path / "set", {"a": 4, "b": 1})
    (root / "a" / "notes.txt").write_text("x")
    warnings = stream_of(FolderStream(paths=(str(root),))).warnings
    assert any("a file that is no image" in warning for warning in warnings)
    assert any("1 classes have no test sample: b" in warning for warning in warnings)


def test_digits_are_five_tasks_of_two() -> None:
    stream = stream_of(DigitsStream(tasks=5))
    assert [len(task.classes) for task in stream.tasks] == [2] * 5
    assert sum(len(task.train) for task in stream.tasks) == 1197
    assert sum(len(task.test) for task in stream.tasks) == 600
    assert stream.protocol == "class-incremental"


def test_tiny_xtail_is_a_task_per_domain_with_all_names_known() -> None:
    stream = stream_of(TinyXtailStream())
    assert stream.protocol == "x-tail"
    assert [len(task.classes) for task in stream.tasks] == [10, 26, 10, 12, 12]
    assert stream.classes == 70 and bool(stream.has_text.all())
    few = stream_of(TinyXtailStream(shots=16))
    assert {len(task.train) // len(task.classes) for task in few.tasks} == {16}
    assert stream_of(TinyXtailStream(tasks=7)).protocol == "class-incremental"


def test_more_tasks_than_classes_is_refused(tmp_path: Path) -> None:
    root = save_folder(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(ConfigError, match="2 or fewer"):
        stream_of(FolderStream(paths=(str(root),), tasks=3))


def test_ten_thousand_classes_open_in_a_moment(tmp_path: Path) -> None:
    picture = tmp_path / "one.png"
    picture.write_bytes(b"never opened")
    root = tmp_path / "set"
    for c in range(10_000):
        folder = root / f"thing_{c}"
        folder.mkdir(parents=True)
        for i in range(2):
            (folder / f"{i}.png").hardlink_to(picture)
    images = read_images(FolderStream(paths=(str(root),)))
    assert len(images.class_names) == 10_000
    assert (images.splits == "test").sum() == 10_000


LIGHT = """
import sys
from pathlib import Path
from raycl.config.streams import DigitsStream, FolderStream, GlyphsStream, TinyXtailStream
from raycl.streams.content import content_digests

for name in ("a", "b"):
    Path("set", name).mkdir(parents=True)
    Path("set", name, "1.png").write_bytes(b"never opened")
content_digests(DigitsStream())
content_digests(FolderStream(paths=("set",)))
assert "PIL" not in sys.modules
content_digests(GlyphsStream())
content_digests(TinyXtailStream())
assert not {"torch", "sklearn", "pandas", "pyarrow", "matplotlib"} & set(sys.modules)
"""


def test_what_a_stream_is_can_be_told_without_anything_heavy(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", LIGHT], cwd=tmp_path, check=True, timeout=120)
