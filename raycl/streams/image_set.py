"""What a set of labelled images is, whatever it is read from.

Guarantees: opening is cheap and decodes nothing; `image(row)` gives the same pixels in
every process; rows keep their order. A worker of a pool rebuilds the set from its spec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raycl.errors import DataError
from raycl.streams.source import Ints, listed


class Pictures(Protocol):
    """Where the pixels of each row come from."""

    def place(self, row: int) -> str: ...
    def image(self, row: int) -> Image.Image: ...


class ImageSet(Protocol):
    """Labelled images in one or more domains, each in a split."""

    @property
    def name(self) -> str: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def class_domain(self) -> Ints: ...
    @property
    def domains(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Ints:
        """The class id of each row."""

    @property
    def splits(self) -> NDArray[np.str_]:
        """`train`, `val` or `test` for each row."""

    @property
    def warnings(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def place(self, row: int) -> str:
        """A path or a description, for messages."""

    def image(self, row: int) -> Image.Image:
        """The RGB picture; a `CorruptImageError` where there is none."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """The one implementation: labels as arrays, pixels from `pictures`."""

    name: str
    class_names: tuple[str, ...]
    class_domain: Ints
    domains: tuple[str, ...]
    labels: Ints
    splits: NDArray[np.str_]
    pictures: Pictures
    warnings: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, row: int) -> str:
        return self.pictures.place(row)

    def image(self, row: int) -> Image.Image:
        return self.pictures.image(row)


@dataclass(frozen=True)
class _JoinedPictures:
    parts: tuple[Pictures, ...]
    starts: Ints
    """The first row of each part."""

    def _part(self, row: int) -> tuple[Pictures, int]:
        i = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[i], row - int(self.starts[i])

    def place(self, row: int) -> str:
        part, inner = self._part(row)
        return part.place(inner)

    def image(self, row: int) -> Image.Image:
        part, inner = self._part(row)
        return part.image(inner)


def join(sets: Sequence[LabelledImages], name: str | None = None) -> LabelledImages:
    """Several domains in one label space; the same name in two of them stays two classes."""
    if len(sets) == 1:
        return sets[0] if name is None else replace(sets[0], name=name)
    first_class = np.cumsum([0] + [len(s.class_names) for s in sets])
    first_domain = np.cumsum([0] + [len(s.domains) for s in sets])
    pairs = list(zip(sets, first_class, first_domain, strict=False))
    return LabelledImages(
        name=name or "+".join(s.name for s in sets),
        class_names=tuple(n for s in sets for n in s.class_names),
        class_domain=np.concatenate([s.class_domain + d for s, _, d in pairs]),
        domains=tuple(d for s in sets for d in s.domains),
        labels=np.concatenate([s.labels + c for s, c, _ in pairs]),
        splits=np.concatenate([s.splits for s in sets]),
        pictures=_JoinedPictures(
            tuple(s.pictures for s in sets), np.cumsum([0] + [len(s) for s in sets])[:-1]
        ),
        warnings=tuple(w for s in sets for w in s.warnings),
    )


def checked(images: LabelledImages) -> LabelledImages:
    """The set, if there is something to learn and to test; else a DataError."""
    if len(images.class_names) < 2:
        raise DataError(
            f"{images.name} has one class, and at least two are needed",
            got=f"only {', '.join(images.class_names) or 'none'}, {len(images)} images",
            do="name the folder whose folders are the classes",
        )
    classes = len(images.class_names)
    train = np.bincount(images.labels[images.splits == "train"], minlength=classes)
    untaught = [images.class_names[c] for c in np.flatnonzero(train == 0)]
    if untaught:
        raise DataError(
            f"{images.name}: {len(untaught)} classes have no training image",
            got=listed(untaught),
            do="add training images of them, or take their test images out too",
        )
    if not (images.splits == "test").any():
        raise DataError(
            f"{images.name} has no test image",
            do="add some, or leave the split of every image out to have a share set aside",
        )
    return images
