"""Folders of images: every layout, and every folder that is none."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raycl.config.streams import FolderStream
from raycl.errors import DataError
from raycl.streams.content import content_digests, resolve_images, with_absolute_paths
from raycl.streams.images import CorruptImageError, ImageSet
from tests.streams.made_images import by_split, encoded, pixels, read, save_folder


def digests(*paths: Path, **options: Any) -> tuple[str, ...]:
    return content_digests(FolderStream(paths=tuple(map(str, paths)), **options))


@pytest.mark.parametrize("val", ["val", "validation", "valid", "VAL"])
def test_splits_are_read_from_folders(tmp_path: Path, val: str) -> None:
    counts = {"train/cat": 3, "train/great_dane": 4, "test/cat": 2, "test/great_dane": 1}
    save_folder(tmp_path / "pets", {**counts, f"{val}/cat": 1})
    images = read(tmp_path / "pets")
    assert images.class_names == ("cat", "great dane")
    assert images.domains == ("pets",) and images.name == "pets" and not images.warnings
    assert by_split(images) == {
        "train": {"cat": 3, "great dane": 4},
        "test": {"cat": 2, "great dane": 1},
        "val": {"cat": 1},
    }


def test_pixels_are_those_of_the_file_and_the_place_is_its_path(tmp_path: Path) -> None:
    images = read(save_folder(tmp_path, {"a": 3, "b": 3}))
    for row in range(len(images)):
        file = Path(images.place(row))
        assert file.parent.name == images.class_names[images.labels[row]]
        seed = sum(map(ord, file.parent.name)) * 1000 + int(file.stem)
        assert np.array_equal(np.asarray(images.image(row)), np.asarray(pixels(seed)))


def test_a_share_of_each_class_is_set_aside_where_there_is_no_split(tmp_path: Path) -> None:
    root = save_folder(tmp_path, {"a": 10, "b": 4, "c": 2, "d": 1})
    assert by_split(read(root)) == {
        "train": {"a": 8, "b": 3, "c": 1, "d": 1},
        "test": {"a": 2, "b": 1, "c": 1},
    }
    assert by_split(read(root, test_fraction=0.95))["train"] == {"a": 1, "b": 1, "c": 1, "d": 1}


def told_apart(images: ImageSet, root: Path) -> dict[str, str]:
    places = [str(Path(images.place(row)).relative_to(root)) for row in range(len(images))]
    return dict(zip(places, images.splits.tolist(), strict=True))


def test_the_split_and_the_rows_follow_names_not_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = save_folder(tmp_path / "one", {"a": 20, "b": 20})
    before, content = read(root), digests(root)
    real = os.scandir

    class Shuffled(list[Any]):
        def __enter__(self) -> Shuffled:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def scandir(path: Any) -> Shuffled:
        with real(path) as entries:
            return Shuffled(random.Random(1).sample(found := list(entries), len(found)))

    monkeypatch.setattr(os, "scandir", scandir)
    after = read(root)
    assert [before.place(r) for r in range(40)] == [after.place(r) for r in range(40)]
    assert told_apart(before, root) == told_apart(after, root)
    assert digests(root) == content
    # Nor does the folder's own place: a copy is split alike and is the same content.
    copy = save_folder(tmp_path / "two", {"a": 20, "b": 20})
    assert told_apart(read(copy), copy) == told_apart(before, root)
    assert digests(copy) == content


def test_one_more_image_moves_at_most_one_other(tmp_path: Path) -> None:
    root = save_folder(tmp_path, {"a": 30, "b": 30})
    before = told_apart(read(root), root)
    (root / "a" / "new.png").write_bytes(encoded(pixels(7)))
    after = told_apart(read(root), root)
    assert sum(after[name] != split for name, split in before.items()) <= 1


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    images = read(save_folder(tmp_path, {"train": 5, "bus": 5}))
    assert images.class_names == ("bus", "train")


def test_the_same_name_in_two_domains_stays_two_classes(tmp_path: Path) -> None:
    pets = save_folder(tmp_path / "pets", {"cat": 3, "dog": 3})
    toys = save_folder(tmp_path / "toys", {"cat": 4, "car": 4})
    images = read(toys, pets)
    assert images.class_names == ("car", "cat", "cat", "dog")
    assert images.domains == ("toys", "pets")
    assert images.class_domain.tolist() == [0, 0, 1, 1]
    last = len(images) - 1
    assert images.place(last) == str(pets / "dog" / "002.png")
    assert images.class_names[images.labels[last]] == "dog"
    assert digests(toys, pets) == digests(toys) + digests(pets)
    one_class_each = [save_folder(tmp_path / n, {"only": 3}) for n in ("x", "y")]
    assert read(*one_class_each).class_names == ("only", "only")


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    root = save_folder(tmp_path / "set", {"a": 2, "b": 2, "a/deeper": 1, "empty": 0})
    (root / "a" / "notes.txt").write_text("x")
    (root / "stray.jpg").write_bytes(b"x")
    (root / ".hidden").mkdir()
    (root / "b" / ".DS_Store").write_text("x")
    (root / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    images = read(root)
    assert images.class_names == ("a", "b") and len(images) == 4
    (warning,) = images.warnings
    for part in (
        "a hidden entry (2×)",
        "a file that is no image (1×)",
        "an image outside of a class (1×)",
        "a folder within a class (1×)",
        "a class folder without images (1×)",
        "an image that is no file or leads nowhere (1×)",
    ):
        assert part in warning


def test_links_are_followed_and_rings_end(tmp_path: Path) -> None:
    outside = save_folder(tmp_path / "elsewhere", {"dog": 3}) / "dog"
    root = save_folder(tmp_path / "set", {"cat": 3})
    (root / "dog").symlink_to(outside)
    (root / "up").symlink_to(root)
    (root / "ring").symlink_to(root / "ring")
    (root / "cat" / "back").symlink_to(root)
    os.mkfifo(root / "cat" / "pipe.jpg")
    images = read(root)
    assert images.class_names == ("cat", "dog") and len(images) == 6
    assert digests(root) == digests(save_folder(tmp_path / "plain", {"cat": 3, "dog": 3}))


def test_endings_are_read_in_any_case_and_names_in_any_bytes(tmp_path: Path) -> None:
    root = save_folder(tmp_path, {"a": 3}, suffix=".PNG")
    odd = os.fsdecode(b"caf\xe9_noir")
    save_folder(root, {odd: 3})
    images = read(root)
    assert images.class_names == ("a", "caf\ufffd noir")
    assert digests(root) == digests(root) and images.image(5).size == (12, 10)


BAD: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "empty": (lambda root: root.mkdir(), ["the folder is empty", "set"]),
    "no images": (
        lambda root: save_folder(root, {"a": 0, "b": 0}),
        ["no class in the folder has an image", "a class folder without images (2×)", ".jpg"],
    ),
    "no classes": (
        lambda root: (root.mkdir(), (root / "x.jpg").write_bytes(b"x")),
        ["no class in the folder", "into a folder that has the name of the class"],
    ),
    "one too high": (
        lambda root: save_folder(root, {"sets/train/cat": 2, "sets/train/dog": 2}),
        ["images lie deeper, such as sets/train/", "folders are the classes"],
    ),
    "one class": (
        lambda root: save_folder(root, {"cat": 4}),
        ["has one class, and at least two are needed", "only cat, 4 images"],
    ),
    "no test": (
        lambda root: save_folder(root, {"train/cat": 4, "train/dog": 4, "val/dog": 1}),
        ["no test images", "add a folder test beside train", "set/train itself"],
    ),
    "untaught": (
        lambda root: save_folder(root, {"train/a": 2, "test/a": 1, "test/b": 1, "test/c": 1}),
        ["2 classes have no training image", "got b, c"],
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path, fault: str) -> None:
    make, parts = BAD[fault]
    make(tmp_path / "set")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "set")
    assert [part for part in parts if part not in str(caught.value)] == []


def test_a_place_that_is_not_there_suggests_its_neighbour(tmp_path: Path) -> None:
    save_folder(tmp_path / "flowers", {"a": 1})
    with pytest.raises(DataError, match="did you mean flowers"):
        read(tmp_path / "flower")
    with pytest.raises(DataError, match="does not exist either"):
        read(tmp_path / "nowhere" / "flowers")
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a folder or a \.parquet file"):
        read(tmp_path / "photo.jpg")
    (tmp_path / "set.npz").write_bytes(b"x")
    with pytest.raises(DataError, match="embeddings:"):
        read(tmp_path / "set.npz")


def test_the_data_root_is_an_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = save_folder(tmp_path / "pets", {"a": 1})
    monkeypatch.setenv("RAYCL_DATA", str(tmp_path))
    assert resolve_images("$RAYCL_DATA/pets") == root
    spec = FolderStream(paths=("${RAYCL_DATA}/pets",))
    assert with_absolute_paths(spec) == FolderStream(paths=(str(root),))
    monkeypatch.delenv("RAYCL_DATA")
    with pytest.raises(DataError, match="RAYCL_DATA, which is not set"):
        resolve_images("$RAYCL_DATA/pets")


def test_a_corrupt_image_is_found_when_it_is_asked_for_and_named(tmp_path: Path) -> None:
    root = save_folder(tmp_path, {"a": 3, "b": 3})
    (root / "a" / "001.png").write_bytes(b"no picture")
    images = read(root)
    assert len(images) == 6
    with pytest.raises(CorruptImageError) as caught:
        images.image(1)
    assert caught.value.place == str(root / "a" / "001.png")


def test_a_fault_of_the_file_system_is_no_corrupt_image(tmp_path: Path) -> None:
    root = save_folder(tmp_path, {"a": 3, "b": 3})
    images = read(root)
    (root / "a" / "001.png").unlink()
    with pytest.raises(FileNotFoundError):
        images.image(1)


def rewritten(file: Path, data: bytes) -> None:
    file.write_bytes(data)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte": lambda root: rewritten(root / "a" / "000.png", encoded(pixels(99))),
    "a name": lambda root: (root / "a" / "000.png").rename(root / "a" / "zzz.png"),
    "a class": lambda root: (root / "a" / "000.png").rename(root / "b" / "100.png"),
    "one less": lambda root: (root / "a" / "000.png").unlink(),
    "two swapped": lambda root: swapped(root / "a" / "000.png", root / "b" / "000.png"),
}


def swapped(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_the_images_is_another_content(tmp_path: Path, change: str) -> None:
    root = save_folder(tmp_path, {"a": 3, "b": 3})
    before = digests(root)
    (root / "a" / "notes.txt").write_text("read by nobody")
    assert digests(root) == before
    CHANGES[change](root)
    assert digests(root) != before


def test_a_folder_is_not_read_again_while_nothing_in_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = save_folder(tmp_path / "set", {"a": 3, "b": 3})
    for file in root.rglob("*.png"):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    opened: list[str] = []
    real = Path.open

    def counted(path: Path, *args: Any, **options: Any) -> Any:
        if path.suffix == ".png" and args[:1] == ("rb",):
            opened.append(path.name)
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", counted)
    first = digests(root)
    assert len(opened) == 6
    assert digests(root) == first and len(opened) == 6
    (root / "b" / "002.png").write_bytes(encoded(pixels(5)))
    changed = digests(root)
    assert changed != first and len(opened) == 7
    # Just written, so its time cannot tell yet: read again, and nothing else is.
    assert digests(root) == changed and len(opened) == 8
    (manifest,) = (tmp_path / "cache" / "raycl" / "folders").iterdir()
    manifest.write_text('{"path": 3, "files": [')
    assert digests(root) == changed and len(opened) == 14
