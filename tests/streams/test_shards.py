"""What Hugging Face's library writes: splits by name, names of classes, and what is odd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl.config.streams import HubStream
from raycl.errors import ConfigError, DataError
from raycl.streams.content import content_digests, with_absolute_paths
from raycl.streams.hub_sets import resolve_hub
from raycl.streams.images import CorruptImageError, ImageSet, read_images
from tests.streams.made_images import by_split, pixels
from tests.streams.made_sources import save_shard

NAMES = ["red_fox", "grey_owl"]
LABEL = [0, 1, 0, 1, 0, 1, 0]


def read(folder: Path, **options: Any) -> ImageSet:
    return read_images(HubStream(paths=(str(folder),), **options))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("train.parquet", "test.parquet"),
        ("train/data-00000-of-00001.arrow", "test/data-00000-of-00001.arrow"),
        ("plain/train/0.parquet", "plain/test/0.parquet"),
    ],
)
def test_splits_are_told_by_names(tmp_path: Path, train: str, test: str) -> None:
    save_shard(tmp_path / "zoo" / train, LABEL, NAMES)
    save_shard(tmp_path / "zoo" / test, [1, 0], NAMES)
    images = read(tmp_path / "zoo")
    assert images.class_names == ("red fox", "grey owl") and images.domains == ("zoo",)
    assert by_split(images) == {
        "train": {"red fox": 4, "grey owl": 3},
        "test": {"red fox": 1, "grey owl": 1},
    }
    assert not images.warnings
    start = sum(map(ord, Path(train).name))
    row = int(np.flatnonzero(images.splits == "train")[3])
    assert np.array_equal(np.asarray(images.image(row)), np.asarray(pixels(start + 3)))
    assert f"{Path(train).name}, row 3" in images.place(row)


def test_several_files_are_one_after_the_other(tmp_path: Path) -> None:
    for i in range(3):
        save_shard(tmp_path / f"train-{i:05d}-of-00003.parquet", LABEL[: 2 + i], NAMES)
    save_shard(tmp_path / "test.parquet", [1, 0], NAMES)
    images = read(tmp_path)
    rows = np.flatnonzero(images.splits == "train")
    assert len(rows) == 2 + 3 + 4
    assert images.labels[rows].tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 1]
    assert "train-00002-of-00003.parquet, row 3" in images.place(int(rows[-1]))


def test_a_validation_split_stands_in_for_a_test_split(tmp_path: Path) -> None:
    save_shard(tmp_path / "train.parquet", LABEL, NAMES)
    save_shard(tmp_path / "validation.parquet", [1, 0], NAMES)
    images = read(tmp_path)
    assert set(by_split(images)) == {"train", "test"}
    assert "its validation split is the test set" in images.warnings[0]


def test_a_hidden_test_split_is_none(tmp_path: Path) -> None:
    """ImageNet's on the hub has the label -1 throughout."""
    save_shard(tmp_path / "train.parquet", LABEL, NAMES)
    save_shard(tmp_path / "test.parquet", [-1, -1, -1], NAMES)
    save_shard(tmp_path / "valid.parquet", [1, 0], NAMES)
    images = read(tmp_path)
    assert len(images) == len(LABEL) + 2
    assert "the split test has no labels" in images.warnings[0]
    assert [images.place(r) for r in range(len(images)) if images.splits[r] == "test"] == [
        f"{tmp_path / 'valid.parquet'}, row {i}" for i in range(2)
    ]
    assert images.image(len(images) - 1).size == (12, 10)


def test_without_splits_a_share_is_set_aside_and_told(tmp_path: Path) -> None:
    save_shard(tmp_path / "one" / "data-00000-of-00001.parquet", LABEL, NAMES)
    images = read(tmp_path / "one")
    assert by_split(images)["test"] == {"red fox": 1, "grey owl": 1}
    assert images.warnings[0].startswith("development:")
    copy = tmp_path / "elsewhere" / "copy"
    save_shard(copy / "data-00000-of-00001.parquet", LABEL, NAMES)
    assert read(copy).splits.tolist() == images.splits.tolist()


def test_other_splits_are_left_out_and_told(tmp_path: Path) -> None:
    save_shard(tmp_path / "train.parquet", LABEL, NAMES)
    save_shard(tmp_path / "test.parquet", [1, 0], NAMES)
    save_shard(tmp_path / "extra.parquet", [1, 0], NAMES)
    images = read(tmp_path)
    assert len(images) == len(LABEL) + 2 and "extra" in images.warnings[0]


def test_labels_may_be_names_or_of_another_column(tmp_path: Path) -> None:
    texts = ["cat" if c else "dog" for c in LABEL]
    save_shard(tmp_path / "a" / "train.parquet", texts, None)
    save_shard(tmp_path / "a" / "test.parquet", ["dog", "cat"], None)
    assert read(tmp_path / "a").class_names == ("cat", "dog")
    for split in ("train", "test"):
        save_shard(tmp_path / "b" / f"{split}.parquet", LABEL, NAMES, label="kind", n=LABEL)
    assert read(tmp_path / "b").class_names == ("red fox", "grey owl")
    for split in ("train", "test"):
        save_shard(tmp_path / "c" / f"{split}.parquet", texts, None, label="n", coarse=texts)
    with pytest.raises(DataError, match=r"set stream\.label to one of"):
        read(tmp_path / "c")
    assert read(tmp_path / "c", label="coarse").class_names == ("cat", "dog")


def replace_image(value: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "train.parquet"
        table = pq.ParquetFile(file).read(use_threads=False)
        rows = [value, *table["image"].to_pylist()[1:]]
        column = pa.array(rows, table.schema.field("image").type)
        pq.write_table(table.set_column(0, "image", column), file)

    return change


def test_a_corrupt_image_or_one_beside_is_named(tmp_path: Path) -> None:
    save_shard(tmp_path / "train.parquet", LABEL, NAMES)
    save_shard(tmp_path / "test.parquet", [1, 0], NAMES)
    for value, said in (
        ({"bytes": b"no picture", "path": "a.png"}, "no image of a known format"),
        ({"bytes": None, "path": "a.png"}, "lies in a file beside"),
    ):
        replace_image(value)(tmp_path)
        images = read(tmp_path)
        row = int(np.flatnonzero(images.splits == "train")[0])
        with pytest.raises(CorruptImageError, match=said) as caught:
            images.image(row)
        assert caught.value.place == f"{tmp_path / 'train.parquet'}, row 0"


def without_images(folder: Path) -> None:
    table = pq.ParquetFile(folder / "train.parquet").read(use_threads=False)
    pq.write_table(table.drop_columns(["image"]), folder / "train.parquet")


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no files": (
        lambda f: [file.unlink() for file in f.glob("*.parquet")],
        ["no Parquet or Arrow file lies here"],
    ),
    "cut short": (
        lambda f: (f / "train.parquet").write_bytes(b"PAR1x"),
        ["train.parquet is not readable"],
    ),
    "no images": (without_images, ["train.parquet has no column of image files", "label"]),
    "nameless": (
        lambda f: (
            save_shard(f / "train.parquet", LABEL, None)
            and save_shard(f / "test.parquet", [0, 1], None)
        ),
        ["says nowhere what its classes are called"],
    ),
    "outside": (
        lambda f: save_shard(f / "train.parquet", [0, 1, 7], NAMES),
        ["1 labels lie outside the list of 2 classes", "label 7"],
    ),
    "half of the labels": (
        lambda f: save_shard(f / "train.parquet", [0, 1, -1], NAMES),
        ["1 images have no label"],
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_cannot_be_used_says_why(tmp_path: Path, fault: str) -> None:
    change, parts = BROKEN[fault]
    save_shard(tmp_path / "train.parquet", LABEL, NAMES)
    save_shard(tmp_path / "test.parquet", [1, 0], NAMES)
    change(tmp_path)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_a_data_set_of_the_hub_is_found_below_the_root_or_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "data" / "hf" / "org" / "zoo"
    save_shard(own / "train.parquet", LABEL, NAMES)
    save_shard(own / "test.parquet", [1, 0], NAMES)
    monkeypatch.setenv("RAYCL_DATA", str(tmp_path / "data"))
    assert resolve_hub("org/zoo", None) == own
    spec = HubStream(paths=("org/zoo",))
    assert read_images(spec).name == "zoo"
    assert with_absolute_paths(spec).paths == (str(own),)
    assert content_digests(spec) == content_digests(HubStream(paths=(str(own),)))
    with pytest.raises(DataError, match="org/none is not on this machine") as caught:
        resolve_hub("org/none", None)
    assert "raycl data prepare hf:org/none --download" in str(caught.value)
    with pytest.raises(ConfigError, match="ORG/NAME"):
        resolve_hub("zoo", None)
    with pytest.raises(ConfigError, match="ORG/NAME"):
        resolve_hub("../zoo", None)
