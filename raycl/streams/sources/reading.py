"""From the name of a data set to its labelled images, and to the digest of its content.

Guarantees: what is read is what the entry says, counted; a digest is of images, classes and
splits, and not of where they lie. Nothing is fetched.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raycl.config.streams import NamedStream
from raycl.streams.image_set import LabelledImages, Pictures, checked, join
from raycl.streams.picture_files import FilePictures
from raycl.streams.shards import read_shards
from raycl.streams.sources.expecting import check_expected
from raycl.streams.sources.listing import Listing, listing_of
from raycl.streams.sources.placing import Placed, find
from raycl.streams.sources.records import read_cifar, read_idx
from raycl.streams.splitting import rows_by_class, set_aside


def read_named(spec: NamedStream) -> LabelledImages:
    """The images of the data sets that a stream names."""
    sets = [_read(find(name, spec.root), spec) for name in spec.names]
    return checked(join(sets, name=spec.title))


def _read(placed: Placed, spec: NamedStream) -> LabelledImages:
    images = read_placed(placed, spec.test_fraction)
    if spec.own_val == "train":
        images = replace(images, splits=np.where(images.splits == "val", "train", images.splits))
    return images


def read_placed(placed: Placed, test_fraction: float, *, expect: bool = True) -> LabelledImages:
    """The images of one data set, which are what is expected unless nothing is."""
    entry, layout = placed.entry, placed.layout
    if layout.kind == "shards":
        folder = placed.folder / layout.folder
        images = read_shards(
            folder, entry.name, test_fraction, label=layout.label, image=layout.image
        )
        by_split = {s: int((images.splits == s).sum()) for s in ("train", "val", "test")}
        if expect:
            check_expected(placed, images.class_names, {**by_split, "all": len(images)})
        return images
    listing, pictures = listed_with_pictures(placed)
    if expect:
        check_expected(placed, listing.class_names, listing.counts)
    splits = _split(listing, test_fraction)
    own = f"development: {entry.name} has no official split, and a share of each class is set aside"
    return LabelledImages(
        name=entry.name,
        class_names=listing.class_names,
        class_domain=np.zeros(len(listing.class_names), np.int64),
        domains=(entry.name,),
        labels=listing.labels,
        splits=splits,
        pictures=pictures,
        warnings=() if (listing.splits != "").all() and entry.official else (own,),
    )


def listed_with_pictures(placed: Placed) -> tuple[Listing, Pictures]:
    """The images of a data set that is not made of shards, as they are."""
    match placed.layout.kind:
        case "cifar":
            return read_cifar(placed, placed.layout)
        case "idx":
            return read_idx(placed, placed.layout)
        case _:
            listing = listing_of(placed)
            return listing, FilePictures(placed.folder, listing.paths)


def _split(listing: Listing, test_fraction: float) -> np.ndarray:
    if (listing.splits != "").all():
        return listing.splits
    out = np.where(listing.splits == "", "train", listing.splits)
    for rows in rows_by_class(listing.labels, len(listing.class_names)):
        own = rows[listing.splits[rows] == ""]
        out[own[set_aside([listing.paths[row] for row in own], test_fraction)]] = "test"
    return out
