"""Each named data set in each of its layouts: read as it should be, and told where it is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from raycl.config.sources.catalogue import (
    entry_of,
    joined_streams,
    known_names,
    parse_names,
    source_names,
    spellings,
)
from raycl.config.streams import NamedStream
from raycl.errors import ConfigError, DataError
from raycl.streams.content import content_digests, with_absolute_paths
from raycl.streams.images import CorruptImageError, ImageSet, read_images
from raycl.streams.sources.placing import OVERRIDE
from tests.streams.made_images import by_split
from tests.streams.made_sources import CLASSES, EACH, make_source

LAYOUTS = [(name, i) for name in source_names() for i in range(len(entry_of(name).layouts))]


def read(root: Path, *names: str, **options: Any) -> ImageSet:
    return read_images(NamedStream(names=names, root=str(root), **options))


def digests(root: Path, *names: str) -> tuple[str, ...]:
    return content_digests(NamedStream(names=names, root=str(root)))


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_a_tree_in_its_layout_is_read(tmp_path: Path, name: str, layout: int) -> None:
    made = make_source(tmp_path, name, layout)
    images = read(tmp_path, name)
    assert images.class_names == made.names and images.domains == (name,)
    if "all" in made.counts:
        assert by_split(images) == {
            "train": dict.fromkeys(made.names, 4),
            "test": dict.fromkeys(made.names, 1),
        }
        assert images.warnings[0].startswith(f"development: {name} has no official split")
    else:
        assert by_split(images) == made.counts
    shapes = {images.image(row).size for row in range(len(images))}
    assert len(shapes) == 1 and images.image(0).mode == "RGB"
    assert name in images.place(0) or str(made.folder) in images.place(0)


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_a_copy_is_the_same_and_a_changed_one_is_not(
    tmp_path: Path, name: str, layout: int
) -> None:
    made = make_source(tmp_path / "one", name, layout)
    make_source(tmp_path / "two", name, layout)
    first = digests(tmp_path / "one", name)
    assert first == digests(tmp_path / "two", name)
    images = read(tmp_path / "one", name)
    file = Path(images.place(1).split(", ")[0])
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert digests(tmp_path / "one", name) != first
    assert made.folder.is_relative_to(tmp_path / "one")


def test_classes_and_counts_are_those_of_the_benchmarks() -> None:
    xtail = [entry_of(name).classes for name in joined_streams()["xtail"]]
    assert xtail == [100, 100, 47, 10, 102, 101, 10, 37, 196, 397] and sum(xtail) == 1100
    papers = {
        "cifar10": (10, 5),
        "cifar100": (100, 10),
        "tiny-imagenet": (200, 10),
        "imagenet-r": (200, 10),
        "cub200": (200, 10),
        "cars": (196, 10),
        "ucf101": (101, 10),
        "eurosat": (10, 5),
        "resisc45": (45, 9),
        "isic": (6, 3),
        "imagenet": (1000, 10),
        "cropdisease": (35, 7),
    }
    for name, (classes, tasks) in papers.items():
        assert (entry_of(name).classes, entry_of(name).tasks) == (classes, tasks), name


def test_every_entry_holds_together() -> None:
    assert len(known_names()) == len(set(known_names()))
    assert set(spellings().values()) <= set(known_names())
    for name in source_names():
        entry = entry_of(name)
        assert entry.template.count("{}") == 1
        assert entry.downloads or entry.by_hand, "somebody must be told where it is found"
        for slot, each in (entry.per_class or {}).items():
            assert entry.counts is not None
            assert entry.counts[slot] == each * entry.classes, (name, slot)
        listed = [key for key in entry.names.listed if key not in entry.names.without]
        assert not listed or len(listed) == entry.classes, name


def test_names_have_other_spellings_and_plus_signs() -> None:
    assert parse_names("CIFAR-100") == ("cifar100",)
    assert parse_names("c2r") == parse_names("cifar100+imagenet-r") == ("cifar100", "imagenet-r")
    assert parse_names("cars196+dtd") == ("cars", "dtd")
    assert parse_names("digits") is None
    with pytest.raises(ConfigError, match="did you mean food101"):
        entry_of("food10")


def break_file(part: str, change: Callable[[Path], object]) -> Callable[[Path], object]:
    def breaking(folder: Path) -> object:
        (file,) = folder.rglob(part)
        return change(file)

    return breaking


def edit_json(change: Callable[[Any], object]) -> Callable[[Path], object]:
    def edit(file: Path) -> None:
        tree = json.loads(file.read_text())
        change(tree)
        file.write_text(json.dumps(tree))

    return edit


def shortened(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


BROKEN: dict[str, tuple[str, int, Callable[[Path], object], list[str]]] = {
    "a list is gone": (
        "dtd",
        0,
        break_file("split_zhou*", Path.unlink),
        ["not whole", "lacks split_zhou_DescribableTextures.json", "raycl data prepare dtd"],
    ),
    "a list is a page": (
        "dtd",
        0,
        break_file("split_zhou*", lambda f: f.write_text("<!DOCTYPE html>")),
        ["split_zhou_DescribableTextures.json cannot be read"],
    ),
    "a list lacks a split": (
        "dtd",
        0,
        break_file("split_zhou*", edit_json(lambda tree: tree.pop("val"))),
        ["must hold three lists"],
    ),
    "too few": (
        "dtd",
        0,
        break_file("split_zhou*", edit_json(lambda tree: tree["train"].pop())),
        ["19 images to train, and 20 are expected", "raycl data verify dtd", OVERRIDE],
    ),
    "two names": (
        "dtd",
        0,
        break_file("split_zhou*", edit_json(lambda t: t["train"][0].__setitem__(2, "Other"))),
        ["label 0 has two class names"],
    ),
    "out of the tree": (
        "dtd",
        0,
        break_file("split_zhou*", edit_json(lambda t: t["train"][0].__setitem__(0, "../../x.jpg"))),
        ["names a file outside of the data set"],
    ),
    "a class is not there": (
        "imagenet",
        0,
        lambda folder: (
            [f.unlink() for f in folder.glob("*/n01491361/*")]
            or [f.rmdir() for f in folder.glob("*/n01491361")]
        ),
        ["3 classes, and 4 are expected"],
    ),
    "a class of no name": (
        "imagenet",
        0,
        lambda folder: [f.rename(f.with_name("dogs")) for f in folder.glob("*/n01491361")],
        ["1 classes have no name in imagenet-names.txt", "got dogs", "/train/dogs/"],
    ),
    "cut short": (
        "cifar100",
        0,
        break_file("train.bin", shortened),
        ["train.bin is cut short", "train.bin"],
    ),
    "labels outside": (
        "cifar100",
        0,
        break_file("fine_label_names.txt", lambda f: f.write_text("a\nb\nc\n")),
        ["labels lie outside the list of 3 classes"],
    ),
    "idx cut short": (
        "mnist",
        0,
        break_file("train-images*", shortened),
        ["train-images-idx3-ubyte is cut short"],
    ),
    "idx of another format": (
        "mnist",
        0,
        break_file("t10k-labels*", lambda f: f.write_bytes(b"\0" * 99)),
        ["t10k-labels-idx1-ubyte is not of MNIST's format"],
    ),
    "two copies": (
        "cub200",
        0,
        break_file("train_test_split.txt", lambda f: f.write_text(f.read_text() + "999 1\n")),
        ["number different images: 1 are in one only", "number 999"],
    ),
    "another line": (
        "aircraft",
        0,
        break_file("images_variant_test.txt", lambda f: f.write_text("what\n")),
        ["images_variant_test.txt: line 1 is not as it should be", "'what'"],
    ),
    "two classes at once": (
        "isic",
        0,
        break_file("*.csv", lambda f: f.write_text(f.read_text().replace("1.0,0.0", "1.0,1.0"))),
        ["an image is of one class"],
    ),
    "no such columns": (
        "isic",
        0,
        break_file("*.csv", lambda f: f.write_text("image,MEL\nx,1\n")),
        ["lacks the columns AKIEC, BCC"],
    ),
    "numbers that do not agree": (
        "imagenet-r",
        0,
        break_file(
            "imagenet-r_train.yaml",
            lambda f: f.write_text(
                yaml.safe_dump(
                    {**(t := yaml.safe_load(f.read_text())), "targets": t["targets"][::-1]}
                )
            ),
        ),
        ["do not give each class one number"],
    ),
    "lists of two lengths": (
        "cropdisease",
        0,
        break_file("test.json", edit_json(lambda t: t["labels"].pop())),
        ["two lists of one length, data and labels"],
    ),
    "a wrong correction": (
        "dtd",
        0,
        break_file(OVERRIDE, lambda f: f.write_text("clases: 3\n")),
        ["may not set clases"],
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_broken_says_what_and_where(tmp_path: Path, fault: str) -> None:
    name, layout, change, parts = BROKEN[fault]
    change(make_source(tmp_path, name, layout).folder)
    with pytest.raises((DataError, ConfigError)) as caught:
        read(tmp_path, name)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_a_missing_image_is_told_before_anything_is_learnt(tmp_path: Path) -> None:
    made = make_source(tmp_path, "dtd")
    gone = next(made.folder.glob("images/*/train0.jpg"))
    gone.unlink()
    with pytest.raises(DataError, match="a file cannot be read") as caught:
        digests(tmp_path, "dtd")
    assert str(gone) in str(caught.value)


def test_a_corrupt_image_is_told_by_its_path(tmp_path: Path) -> None:
    made = make_source(tmp_path, "dtd")
    bad = next(made.folder.glob("images/*/train0.jpg"))
    bad.write_bytes(b"no picture")
    images = read(tmp_path, "dtd")
    row = next(r for r in range(len(images)) if images.place(r) == str(bad))
    with pytest.raises(CorruptImageError, match="corrupt image"):
        images.image(row)


def test_what_is_not_there_says_what_to_place_where(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "caltech101")
    said = str(caught.value)
    assert "Caltech-101 is not on this machine" in said
    assert f"{tmp_path / 'caltech-101'}: split_zhou_Caltech101.json" in said
    assert "raycl data prepare caltech101" in said


def test_pickled_cifar_is_named_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "cifar100" / "cifar-100-python").mkdir(parents=True)
    with pytest.raises(DataError, match="cifar-100-python holds pickles, which could run code"):
        read(tmp_path, "cifar100")


def test_the_root_is_an_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(tmp_path, "eurosat")
    spec = NamedStream(names=("eurosat",))
    monkeypatch.delenv("RAYCL_DATA", raising=False)
    with pytest.raises(DataError, match="RAYCL_DATA, which is not set"):
        read_images(spec)
    monkeypatch.setenv("RAYCL_DATA", str(tmp_path))
    assert len(read_images(spec)) == CLASSES * sum(EACH.values())
    assert with_absolute_paths(spec) == NamedStream(names=("eurosat",), root=str(tmp_path))
    monkeypatch.setenv("RAYCL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="root of data sets is no folder"):
        read_images(spec)


def test_its_own_validation_may_be_learnt_from(tmp_path: Path) -> None:
    make_source(tmp_path, "cars")
    assert set(by_split(read(tmp_path, "cars"))) == {"train", "val", "test"}
    joined = by_split(read(tmp_path, "cars", own_val="train"))
    assert set(joined) == {"train", "test"} and joined["train"]["Kind 0"] == 8


def test_numbers_of_the_lists_are_the_class_order(tmp_path: Path) -> None:
    """ImageNet-R's lists of the literature number classes as they like."""
    made = make_source(tmp_path, "imagenet-r")
    for file in made.folder.glob("*.yaml"):
        if file.name != OVERRIDE:
            tree = yaml.safe_load(file.read_text())
            tree["targets"] = [3 - c for c in tree["targets"]]
            file.write_text(yaml.safe_dump(tree))
    images = read(tmp_path, "imagenet-r")
    assert images.class_names == made.names[::-1]
    row = int(np.flatnonzero(images.labels == 0)[0])
    keys = sorted(folder.name for folder in made.folder.glob("n*"))
    assert Path(images.place(row)).parent.name == keys[-1]
