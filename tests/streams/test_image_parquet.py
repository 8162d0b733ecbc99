"""Parquet files of images: what they may say, and what is refused in words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl.config.streams import FolderStream
from raycl.errors import DataError, StoreError
from raycl.streams import encoded
from raycl.streams.content import content_digests
from raycl.streams.encoded import EncodedColumn
from raycl.streams.images import CorruptImageError
from tests.streams.made_images import by_split, pixels, read, save_folder, save_images

LABEL = [0, 1] * 5


def test_splits_and_names_are_those_of_the_file(tmp_path: Path) -> None:
    split = ["train"] * 6 + ["test", "Test", "validation", "val"]
    images = read(save_images(tmp_path / "pets.parquet", LABEL, split=split))
    assert images.class_names == ("cat", "dog") and images.domains == ("pets",)
    assert by_split(images) == {
        "train": {"cat": 3, "dog": 3},
        "test": {"cat": 1, "dog": 1},
        "val": {"cat": 1, "dog": 1},
    }
    for row in range(len(LABEL)):
        assert np.array_equal(np.asarray(images.image(row)), np.asarray(pixels(row)))


@pytest.mark.parametrize("split", [None, [""] * 10, [None] * 10])
def test_a_share_is_set_aside_where_the_file_names_no_split(
    tmp_path: Path, split: list[str | None] | None
) -> None:
    columns = {} if split is None else {"split": pa.array(split, pa.string())}
    images = read(save_images(tmp_path / "set.parquet", LABEL, **columns))
    assert by_split(images) == {"train": {"cat": 4, "dog": 4}, "test": {"cat": 1, "dog": 1}}


@pytest.mark.parametrize("with_paths", [True, False])
def test_our_split_does_not_move_with_the_order_of_rows(tmp_path: Path, with_paths: bool) -> None:
    paths = {"path": [f"photos/{i}.png" for i in range(40)]} if with_paths else {}
    file = save_images(tmp_path / "a.parquet", [0, 1] * 20, **paths)
    table = pq.ParquetFile(file).read(use_threads=False)
    pq.write_table(table.take(list(reversed(range(40)))), tmp_path / "b.parquet")
    one, other = read(file), read(tmp_path / "b.parquet")
    assert one.splits.tolist() == other.splits.tolist()[::-1]
    assert (one.splits == "test").sum() == 8


def test_names_come_from_a_column_too_or_from_labels_that_are_text(tmp_path: Path) -> None:
    words = ["dog" if label else "cat" for label in LABEL]
    by_column = save_images(tmp_path / "a.parquet", LABEL, names=None, class_name=words)
    by_label = save_images(tmp_path / "b.parquet", words, names=None)
    categories = pa.array(words).dictionary_encode()
    by_category = save_images(tmp_path / "c.parquet", categories, names=None)
    for file in (by_column, by_label, by_category):
        images = read(file)
        assert images.class_names == ("cat", "dog") and images.labels.tolist() == LABEL


def test_a_file_of_hugging_face_is_read_as_it_is(tmp_path: Path) -> None:
    file = save_images(tmp_path / "a.parquet", LABEL)
    table = pq.ParquetFile(file).read(use_threads=False)
    wrapped = pa.array([{"bytes": b, "path": None} for b in table["image"].to_pylist()])
    label = {"names": ["tabby", "dalmatian"], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
    theirs = table.set_column(0, "image", wrapped).replace_schema_metadata(metadata)
    pq.write_table(theirs, tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet").class_names == ("tabby", "dalmatian")
    assert np.array_equal(
        np.asarray(read(tmp_path / "b.parquet").image(7)), np.asarray(read(file).image(7))
    )


def test_a_column_may_name_domains(tmp_path: Path) -> None:
    domain = ["pets"] * 5 + ["toys"] * 5
    label = [0, 1, 0, 1, 0, 2, 3, 2, 3, 2]
    names = ("cat", "dog", "cat", "car")
    images = read(save_images(tmp_path / "a.parquet", label, names=names, domain=domain))
    assert images.domains == ("pets", "toys") and images.class_domain.tolist() == [0, 0, 1, 1]
    with pytest.raises(DataError, match="a class belongs to one domain"):
        read(save_images(tmp_path / "b.parquet", [0, 1] * 5, domain=domain))


def test_files_and_folders_join(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "toys", {"cat": 3, "car": 3})
    images = read(save_images(tmp_path / "pets.parquet", LABEL), folder)
    assert images.class_names == ("cat", "dog", "car", "cat")
    assert images.domains == ("pets", "toys")
    assert "pets.parquet, row 9" in images.place(9)
    assert images.place(10) == str(folder / "car" / "000.png")
    assert images.image(10).size == images.image(9).size


def test_a_corrupt_row_is_named_by_row_and_path(tmp_path: Path) -> None:
    file = save_images(tmp_path / "a.parquet", LABEL, path=[f"p/{i}.png" for i in range(10)])
    table = pq.ParquetFile(file).read(use_threads=False)
    data = table["image"].to_pylist()
    data[3], data[4], data[5] = data[3][:50], b"", None
    pq.write_table(table.set_column(0, "image", pa.array(data)), file)
    images = read(file)
    assert images.image(2).mode == "RGB"
    for row in (3, 4, 5):
        with pytest.raises(CorruptImageError, match=rf"a\.parquet, row {row} \(p/{row}\.png\)"):
            images.image(row)


def test_opening_reads_no_image_and_the_bytes_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = pq.ParquetFile.read_row_group

    def watched(self: pq.ParquetFile, i: int, columns: list[str], **options: object) -> pa.Table:
        asked.extend(columns)
        return real(self, i, columns=columns, **options)

    file = save_images(tmp_path / "a.parquet", LABEL, split=["train"] * 8 + ["test"] * 2)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    images = read(file)
    assert "image" not in asked
    for row in range(10):
        images.image(row)
    assert asked.count("image") == 1


def test_of_a_large_file_few_row_groups_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_images(tmp_path / "a.parquet", LABEL, split=["train"] * 8 + ["test"] * 2)
    table = pq.ParquetFile(file).read(use_threads=False)
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=3)
    whole = [table["image"][row].as_py() for row in range(10)]
    groups: list[int] = []
    real = pq.ParquetFile.read_row_group

    def watched(self: pq.ParquetFile, i: int, **options: object) -> pa.Table:
        groups.append(i)
        return real(self, i, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    column = EncodedColumn(tmp_path / "b.parquet", "image")
    assert [column.get(row) for row in (*range(10), 0)] == [*whole, whole[0]]
    assert groups == [0, 1, 2, 3]
    monkeypatch.setattr(encoded, "HELD_BYTES", 1)
    few = EncodedColumn(tmp_path / "b.parquet", "image")
    assert [few.get(row) for row in (9, 0, 1, 4, 8)] == [whole[r] for r in (9, 0, 1, 4, 8)]
    assert groups[4:] == [3, 0, 1, 2]


def test_a_file_whose_images_cannot_be_read_is_not_full_of_corrupt_ones(tmp_path: Path) -> None:
    file = save_images(tmp_path / "a.parquet", LABEL, split=["train"] * 8 + ["test"] * 2)
    images = read(file)
    file.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        images.image(0)


def without(column: str) -> Callable[[Path], object]:
    def make(file: Path) -> None:
        table = pq.ParquetFile(save_images(file, LABEL)).read(use_threads=False)
        pq.write_table(table.drop_columns([column]), file)

    return make


BAD: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no label": (without("label"), ["lacks the columns label", "image, label"]),
    "no image": (without("image"), ["lacks the columns image"]),
    "vectors": (
        lambda f: pq.write_table(pa.table({"embedding": [[1.0]], "label": [0]}), f),
        ["lacks the columns image", "embeddings:"],
    ),
    "not parquet": (lambda f: f.write_text("x,y\n"), ["not a readable Parquet file"]),
    "cut short": (
        lambda f: (save_images(f, LABEL), f.write_bytes(f.read_bytes()[:-40])),
        ["not a readable Parquet file"],
    ),
    "no rows": (lambda f: save_images(f, pa.array([], pa.int64())), ["holds no image"]),
    "pixels": (
        lambda f: pq.write_table(pa.table({"image": [[1, 2]], "label": [0]}), f),
        ["image must be a column of bytes", "list<"],
    ),
    "nameless": (lambda f: save_images(f, LABEL, names=None), ["what its classes are called"]),
    "blank name": (lambda f: save_images(f, LABEL, names=("a", " ", "c")), ["labels 1"]),
    "label too high": (lambda f: save_images(f, [0, 1, 7]), ["outside the list of 2", "label 7"]),
    "negative label": (lambda f: save_images(f, [0, 1, -1]), ["outside", "label -1 at row 2"]),
    "no labels": (lambda f: save_images(f, [0, 1, None]), ["1 images have no label"]),
    "float labels": (lambda f: save_images(f, [0.0, 1.0]), ["whole numbers", "double"]),
    "two names": (
        lambda f: save_images(f, [0, 0], names=None, class_name=["cat", "dog"]),
        ["label 0 has two class names"],
    ),
    "unknown split": (
        lambda f: save_images(f, [0, 1], split=["trian", "test"]),
        ["unknown split", "trian", "use train, test"],
    ),
    "some splits": (
        lambda f: save_images(f, [0, 1], split=["train", ""]),
        ["some rows name a split", "1 of 2 rows"],
    ),
    "untaught": (
        lambda f: save_images(f, [0, 0, 1], split=["train", "test", "test"]),
        ["1 classes have no training image", "got dog"],
    ),
    "listed, not there": (
        lambda f: save_images(f, LABEL, names=("cat", "dog", "emu")),
        ["1 classes have no training image", "got emu"],
    ),
    "no test": (lambda f: save_images(f, [0, 1], split=["train"] * 2), ["has no test image"]),
    "one class": (lambda f: save_images(f, [0] * 4, names=["cat"]), ["at least two are needed"]),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, fault: str) -> None:
    make, parts = BAD[fault]
    make(tmp_path / "set.parquet")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "set.parquet")
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("clothing_small_96", {"train": 3068, "val": 341, "test": 372}),
        ("sign_digits_64", {"train": 1651, "test": 411}),
    ],
)
def test_real_sets_are_read(name: str, counts: dict[str, int]) -> None:
    file = Path(os.environ.get("RAYCL_DATA", "")) / "images" / f"{name}.parquet"
    if not file.is_file():
        pytest.skip(f"RAYCL_DATA has no images/{name}.parquet")
    images = read(file)
    assert len(images.class_names) == 10 and not images.warnings
    assert {split: sum(of.values()) for split, of in by_split(images).items()} == counts
    sizes = {images.image(row).size for row in range(0, len(images), 100)}
    assert sizes == {(int(name[-2:]),) * 2}


def test_a_file_is_its_bytes(tmp_path: Path) -> None:
    def digest(name: str) -> tuple[str, ...]:
        return content_digests(FolderStream(paths=(str(tmp_path / name),)))

    one = save_images(tmp_path / "a.parquet", LABEL)
    (tmp_path / "b.parquet").write_bytes(one.read_bytes())
    save_images(tmp_path / "c.parquet", LABEL[::-1])
    assert digest("a.parquet") == digest("b.parquet") != digest("c.parquet")
