"""Verifying: each kind of fault is named with its place, and all are counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raycl.errors import DataError
from raycl.observe.events import Event, Progress
from raycl.streams.sources.placing import OVERRIDE
from raycl.streams.sources.verifying import NAMED, Report, verify
from tests.streams.made_sources import make_source


@pytest.mark.parametrize(
    "name", ["dtd", "cifar10", "mnist", "cub200", "tiny-imagenet", "isic", "aircraft"]
)
def test_a_whole_set_has_no_fault(tmp_path: Path, name: str) -> None:
    made = make_source(tmp_path, name)
    report = verify(name, str(tmp_path), decode=True, workers=2)
    assert report.ok and not report.unlisted
    assert report.classes == len(made.names)
    assert (
        report.decoded == report.counts["all"] == sum(sum(c.values()) for c in made.counts.values())
    )


def first(folder: Path, pattern: str) -> Path:
    return sorted(folder.rglob(pattern))[0]


def correct(folder: Path, **fields: object) -> None:
    file = folder / OVERRIDE
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **fields}))


FAULTS: dict[str, tuple[str, Callable[[Path], object], str, list[str]]] = {
    "missing": ("dtd", lambda f: first(f, "train0.jpg").unlink(), "missing", ["train0.jpg"]),
    "a missing folder": (
        "dtd",
        lambda f: (f / "images" / "Kind_2").rename(f / "images" / "kind2"),
        "missing",
        ["images/Kind_2/train0.jpg"],
    ),
    "empty": ("dtd", lambda f: first(f, "test1.jpg").write_bytes(b""), "empty", ["test1.jpg"]),
    "corrupt": (
        "dtd",
        lambda f: first(f, "val1.jpg").write_bytes(b"no picture"),
        "corrupt",
        ["val1.jpg", "no image of a known format"],
    ),
    "cut short": (
        "dtd",
        lambda f: first(f, "val1.jpg").write_bytes(first(f, "val1.jpg").read_bytes()[:-40]),
        "corrupt",
        ["val1.jpg"],
    ),
    "too few in a class": (
        "tiny-imagenet",
        lambda f: (
            correct(f, per_class={"train": 5}, counts={"train": 19}),
            first(f, "train0.JPEG").unlink(),
        ),
        "miscounted",
        ["water thing 0: 4 images to train, and 5 are expected"],
    ),
    "too few": (
        "tiny-imagenet",
        lambda f: first(f, "train0.JPEG").unlink(),
        "miscounted",
        ["19 images to train, and 20 are expected"],
    ),
    "a class of no name": (
        "tiny-imagenet",
        lambda f: (f / "train" / "n00000001").rename(f / "train" / "cats"),
        "unreadable",
        ["1 classes have no name in words.txt", "cats", "/train/cats/"],
    ),
    "altered": (
        "mnist",
        lambda f: correct(f, checksums={"t10k-labels-idx1-ubyte": "0" * 32}),
        "altered",
        ["t10k-labels-idx1-ubyte: MD5", f"{'0' * 32} is expected"],
    ),
    "cut records": (
        "cifar10",
        lambda f: first(f, "test_batch.bin").write_bytes(b"x" * 100),
        "unreadable",
        ["test_batch.bin is cut short"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(tmp_path: Path, fault: str) -> None:
    name, change, kind, parts = FAULTS[fault]
    change(make_source(tmp_path, name).folder)
    report = verify(name, str(tmp_path), decode=True)
    assert not report.ok and report.faults[kind] >= 1
    said = "\n".join(report.named[kind])
    assert [part for part in parts if part not in said] == []


def test_all_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    made = make_source(tmp_path, "dtd")
    for file in made.folder.rglob("*.jpg"):
        file.unlink()
    report = verify("dtd", str(tmp_path))
    assert report.faults == {"missing": 40} and len(report.named["missing"]) == NAMED
    assert report.as_json()["ok"] is False


def test_images_of_no_list_are_counted_and_no_fault(tmp_path: Path) -> None:
    made = make_source(tmp_path, "dtd")
    (made.folder / "images" / "Kind_0" / "extra.jpg").write_bytes(b"x")
    report = verify("dtd", str(tmp_path))
    assert report.ok and report.unlisted == 1


def test_progress_ends_at_the_last_image(tmp_path: Path) -> None:
    make_source(tmp_path, "dtd")
    told: list[Event] = []
    verify("dtd", str(tmp_path), decode=True, observer=told.append)
    ends = [(e.stage, e.done, e.total) for e in told if isinstance(e, Progress)]
    assert ends == [("verify dtd", 40, 40), ("decode dtd", 40, 40)]


def test_a_set_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not on this machine"):
        verify("dtd", str(tmp_path))
    assert Report("x").ok
