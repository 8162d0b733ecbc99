"""From the spec of an image stream to its labelled images, and from features to a source.

`read_images` is the one way to a set: cheap, the same in every process, and checked.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raycl.config.places import is_folder
from raycl.config.streams import (
    DigitsStream,
    FolderStream,
    GlyphsStream,
    HubStream,
    ImageStream,
    NamedStream,
    TinyXtailStream,
)
from raycl.streams import drawn
from raycl.streams.content import digits_file, resolve_images
from raycl.streams.decoding import CorruptImageError as CorruptImageError
from raycl.streams.folders import Found, find_images
from raycl.streams.hub_sets import resolve_hub
from raycl.streams.image_parquet import read_image_parquet
from raycl.streams.image_set import ImageSet as ImageSet
from raycl.streams.image_set import LabelledImages, checked, join
from raycl.streams.picture_files import FilePictures
from raycl.streams.shards import read_shards
from raycl.streams.source import Floats, Ints, Source, Table
from raycl.streams.source import checked as checked_source
from raycl.streams.sources.reading import read_named
from raycl.streams.splitting import rows_by_class, set_aside

DIGITS_TRAIN = 1197
"""The first rows of scikit-learn's digits train, the last 600 test: a fixed split."""


def read_images(spec: ImageStream) -> ImageSet:
    """The labelled images of a stream, in the data set's own order and labels."""
    match spec:
        case DigitsStream():
            return _digits()
        case GlyphsStream():
            return drawn.drawn("glyphs", (*drawn.LETTERS, *drawn.DIGITS), train=40, test=20)
        case TinyXtailStream():
            return _tiny_xtail()
        case FolderStream():
            return checked(join([_read_place(path, spec) for path in spec.paths]))
        case HubStream():
            return checked(join([_read_hub(path, spec) for path in spec.paths]))
        case NamedStream():
            return read_named(spec)
        case _:
            assert_never(spec)


def source_of_features(images: ImageSet, x: Floats, kept_rows: Ints, text: Floats) -> Source:
    """The checked source of a set whose row `kept_rows[i]` has become the vector `x[i]`."""
    assert len(x) == len(kept_rows) and bool((np.diff(kept_rows) > 0).all())
    splits, labels = images.splits[kept_rows], images.labels[kept_rows]

    def table(split: str) -> Table:
        rows = np.flatnonzero(splits == split)
        return Table(np.ascontiguousarray(x[rows], np.float32), labels[rows], kept_rows[rows])

    return checked_source(
        Source(
            name=images.name,
            train=table("train"),
            validation=table("val"),
            test=table("test"),
            class_names=images.class_names,
            text=np.ascontiguousarray(text, np.float32),
            has_text=np.ones(len(images.class_names), bool),
            class_domain=images.class_domain,
            domains=images.domains,
            warnings=images.warnings,
        )
    )


def _tiny_xtail() -> LabelledImages:
    domains = [
        _few_per_class(_digits(), train=60, test=40),
        drawn.drawn("letters", drawn.LETTERS, train=30, test=20),
        drawn.drawn("shapes", drawn.SHAPES, train=30, test=20),
        drawn.drawn("textures", drawn.PATTERNS, train=30, test=20),
        drawn.drawn("colours", drawn.PATCHES, train=30, test=20),
    ]
    return join(domains, name="tiny-xtail")


@dataclass(frozen=True)
class _Scans:
    """Pictures that lie in memory: 8×8, and grey from 0 to 16."""

    pixels: NDArray[np.uint8]
    rows: Ints

    def place(self, row: int) -> str:
        return f"{digits_file()}, row {self.rows[row]}"

    def image(self, row: int) -> Image.Image:
        grey = np.round(self.pixels[self.rows[row]] * (255 / 16)).astype(np.uint8)
        return Image.fromarray(grey.reshape(8, 8)).convert("RGB")


def _digits() -> LabelledImages:
    with gzip.open(digits_file(), "rt", encoding="ascii") as file:
        table = np.asarray(list(csv.reader(file)), dtype=np.float64).astype(np.uint8)
    splits = np.full(len(table), "train")
    splits[DIGITS_TRAIN:] = "test"
    return LabelledImages(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        class_domain=np.zeros(10, np.int64),
        domains=("digits",),
        labels=table[:, -1].astype(np.int64),
        splits=splits,
        pictures=_Scans(table[:, :-1], np.arange(len(table))),
    )


def _few_per_class(images: LabelledImages, *, train: int, test: int) -> LabelledImages:
    """The first images of each class and split."""
    kept = []
    for split, count in (("train", train), ("test", test)):
        there = np.flatnonzero(images.splits == split)
        by_class = rows_by_class(images.labels[there], len(images.class_names))
        kept += [there[rows[:count]] for rows in by_class]
    rows = np.sort(np.concatenate(kept))
    assert isinstance(images.pictures, _Scans)
    return replace(
        images,
        labels=images.labels[rows],
        splits=images.splits[rows],
        pictures=_Scans(images.pictures.pixels, images.pictures.rows[rows]),
    )


def _read_place(text: str, spec: FolderStream) -> LabelledImages:
    place = resolve_images(text)
    if is_folder(place):
        return _of_folder(find_images(place), spec.test_fraction)
    return read_image_parquet(place, spec.test_fraction)


def _read_hub(text: str, spec: HubStream) -> LabelledImages:
    folder = resolve_hub(text, spec.root)
    name = text.rstrip("/").rpartition("/")[2]
    return read_shards(folder, name, spec.test_fraction, image=spec.image, label=spec.label)


def _of_folder(found: Found, test_fraction: float) -> LabelledImages:
    names = tuple(sorted({image.class_name for image in found.images}))
    number = {name: c for c, name in enumerate(names)}
    labels = np.asarray([number[image.class_name] for image in found.images], np.int64)
    relative = tuple(image.relative for image in found.images)
    if found.has_splits:
        splits = np.asarray([image.split for image in found.images], dtype=np.str_)
    else:
        splits = np.full(len(labels), "train")
        for rows in rows_by_class(labels, len(names)):
            splits[rows[set_aside([relative[row] for row in rows], test_fraction)]] = "test"
    return LabelledImages(
        name=found.name,
        class_names=names,
        class_domain=np.zeros(len(names), np.int64),
        domains=(found.name,),
        labels=labels,
        splits=splits,
        pictures=FilePictures(found.root, relative),
        warnings=found.warnings,
    )
