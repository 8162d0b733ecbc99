"""Images that lie side by side in files of plain bytes: CIFAR's binary version, MNIST's idx.

Guarantees that a file has the length that its images need, and labels within the classes.
CIFAR's is mapped, MNIST's is read. The Python version of CIFAR holds pickles and is not read.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raycl.config.sources.entry import CifarLayout, IdxLayout
from raycl.errors import DataError
from raycl.streams.source import Ints
from raycl.streams.sources.listing import Listing, name_of
from raycl.streams.sources.parts import lines_of
from raycl.streams.sources.placing import Placed, as_placed

PIXELS = 32 * 32 * 3
_IMAGES_MAGIC, _LABELS_MAGIC = 0x0803, 0x0801

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class RecordPictures:
    """Pictures in arrays of bytes, one array after the other."""

    files: tuple[Path, ...]
    arrays: tuple[Bytes, ...]
    """Each (n, height, width) or (n, 3, height, width)."""

    @cached_property
    def _starts(self) -> Ints:
        return np.cumsum([0, *(len(array) for array in self.arrays)])[:-1]

    def _part(self, row: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return part, row - int(self._starts[part])

    def place(self, row: int) -> str:
        part, inner = self._part(row)
        return f"{self.files[part]}, image {inner}"

    def image(self, row: int) -> Image.Image:
        part, inner = self._part(row)
        pixels = np.asarray(self.arrays[part][inner])
        if pixels.ndim == 3:
            return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def read_cifar(placed: Placed, layout: CifarLayout) -> tuple[Listing, RecordPictures]:
    """The records of CIFAR's binary version."""
    folder = placed.folder / layout.folder
    names = [name_of(line.strip(), placed.entry.names) for line in lines_of(folder / layout.names)]
    width = layout.labels + PIXELS
    files = [(split, folder / f) for split in ("train", "test") for f in getattr(layout, split)]
    tables = [_mapped(file, width) for _, file in files]
    labels = [np.asarray(table[:, layout.labels - 1], np.int64) for table in tables]
    pictures = RecordPictures(
        files=tuple(file for _, file in files),
        arrays=tuple(table[:, layout.labels :].reshape(-1, 3, 32, 32) for table in tables),
    )
    splits = [split for split, _ in files]
    return _listing(names, splits, labels, [file for _, file in files]), pictures


def read_idx(placed: Placed, layout: IdxLayout) -> tuple[Listing, RecordPictures]:
    """The images and labels of MNIST's format."""
    folder = placed.folder / layout.folder
    names = [name_of(key, placed.entry.names) for key in placed.entry.names.listed]
    files, arrays, labels = [], [], []
    for split in ("train", "test"):
        images, marks = (as_placed(folder / name) for name in getattr(layout, split))
        array, label = _idx(images, _IMAGES_MAGIC, 3), _idx(marks, _LABELS_MAGIC, 1)
        if len(array) != len(label):
            raise DataError(
                f"{images.name} and {marks.name} are not of one length",
                got=f"{len(array)} images, {len(label)} labels, in {folder}",
                do="fetch both again",
            )
        files.append(images)
        arrays.append(array)
        labels.append(label.astype(np.int64))
    pictures = RecordPictures(tuple(files), tuple(arrays))
    return _listing(names, ["train", "test"], labels, files), pictures


def _listing(names: list[str], splits: list[str], labels: list[Ints], files: list[Path]) -> Listing:
    for file, label in zip(files, labels, strict=True):
        outside = np.flatnonzero(label >= len(names))
        if len(outside):
            raise DataError(
                f"{file.name}: {len(outside)} labels lie outside the list of {len(names)} classes",
                got=f"label {label[outside[0]]} of image {outside[0]}, in {file}",
                do="see that the file is whole and the list of names is its own",
            )
    lengths = [len(label) for label in labels]
    return Listing(
        class_names=tuple(names),
        labels=np.concatenate(labels),
        splits=np.repeat(np.asarray(splits, dtype="U5"), lengths),
        paths=(),
    )


def _mapped(file: Path, width: int) -> Bytes:
    size = file.stat().st_size
    if size == 0 or size % width:
        raise DataError(
            f"{file.name} is cut short, or is no binary version of CIFAR",
            got=f"{size} bytes, which is no multiple of {width}, in {file}",
            do="fetch it again",
        )
    table: Bytes = np.memmap(file, np.uint8, mode="r").reshape(-1, width)
    return table


def _idx(file: Path, magic: int, axes: int) -> Bytes:
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{file.name} cannot be read: {error}", got=str(file), do="fetch it again"
        ) from error
    head = np.frombuffer(data[: 4 * (1 + axes)], ">u4")
    if len(head) != 1 + axes or head[0] != magic:
        raise DataError(f"{file.name} is not of MNIST's format", got=str(file), do="fetch it again")
    shape = tuple(int(n) for n in head[1:])
    if len(data) != 4 * (1 + axes) + int(np.prod(shape)):
        raise DataError(
            f"{file.name} is cut short",
            got=f"{len(data)} bytes for the shape {shape}, in {file}",
            do="fetch it again",
        )
    return np.frombuffer(data, np.uint8, offset=4 * (1 + axes)).reshape(shape)
