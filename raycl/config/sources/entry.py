"""What is known of a data set: its size, its licence, and the layouts that it comes in.

Guarantees nothing about a disk: an entry says what should be there, and `raycl.streams.sources`
looks. A field that is null is not known, and is shown as not stated. Layouts are tagged and
few; a data set with a strange one is a table of paths and keys, never a reader of its own.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Slot = Literal["train", "val", "test", "all"]
"""`all`: the part names the split of each image itself, or a share is set aside."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FolderPart(_Table):
    """A folder per class; its name is the class's key."""

    kind: Literal["folder"]
    root: str = "."
    below: str = ""
    """A folder within each class that holds the images."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.root,)


class LinesPart(_Table):
    """A text file with an image and a key in each line."""

    kind: Literal["lines"]
    file: str
    pattern: str
    """A regular expression with the groups `path` and `key`."""
    image: str = "{path}"
    """Where the image lies, made of the groups."""

    @field_validator("pattern")
    @classmethod
    def _has_both(cls, pattern: str) -> str:
        if not {"path", "key"} <= re.compile(pattern).groupindex.keys():
            raise ValueError("a pattern has the groups path and key")
        return pattern

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.file,)


class PairsPart(_Table):
    """JSON or YAML with a list of paths and a list of whole numbers, the classes."""

    kind: Literal["pairs"]
    file: str
    strip: str = ""
    """A regular expression for what is taken off the beginning of each path."""
    root: str = "."
    labels: Literal["targets", "labels"] = "targets"
    key: Literal["folder", "label"]
    """Which names a class: the image's folder, or the number as a place in `names.listed`."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.file,)


class ColumnsPart(_Table):
    """CSV with a column that names the image and a column per class, one of which is 1."""

    kind: Literal["columns"]
    file: str
    path: str
    image: str
    keys: tuple[str, ...]
    """The columns of the classes; an image of none of them is left out."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.file,)


class NumberedPart(_Table):
    """Three files of numbered lines: paths, labels, and whether each is for training."""

    kind: Literal["numbered"]
    images: str
    labels: str
    training: str
    root: str

    @property
    def needs(self) -> tuple[str, ...]:
        return self.images, self.labels, self.training


Part = Annotated[
    FolderPart | LinesPart | PairsPart | ColumnsPart | NumberedPart, Field(discriminator="kind")
]


class FilesLayout(_Table):
    """Images in files, told apart by folders or lists."""

    kind: Literal["files"]
    parts: dict[Slot, Part]
    counts: dict[Slot, int] | None = None
    """In place of the entry's own, where this layout is cut in another way."""

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(need for part in self.parts.values() for need in part.needs)


class CoOpLayout(_Table):
    """CoOp's `split_zhou_*.json`: path, label and name of each image by split."""

    kind: Literal["coop"]
    file: str
    images: str

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.file,)


class CifarLayout(_Table):
    """CIFAR's binary version: records of labels and 3,072 bytes of pixels."""

    kind: Literal["cifar"]
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    labels: Literal[1, 2]
    """Bytes before the pixels; the last of them is the class."""

    @property
    def needs(self) -> tuple[str, ...]:
        files = (*self.train, *self.test, self.names)
        return tuple(f"{self.folder}/{file}" for file in files)


class IdxLayout(_Table):
    """MNIST's own format, compressed or not: images and labels of each split."""

    kind: Literal["idx"]
    folder: str = "."
    train: tuple[str, str]
    test: tuple[str, str]

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(f"{self.folder}/{file}" for file in (*self.train, *self.test))


class ShardsLayout(_Table):
    """Parquet or Arrow files of Hugging Face `datasets`, named by split."""

    kind: Literal["shards"]
    folder: str = "."
    label: str | None = None
    image: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return ()


Layout = Annotated[
    FilesLayout | CoOpLayout | CifarLayout | IdxLayout | ShardsLayout, Field(discriminator="kind")
]


class Names(_Table):
    """From a class's key to its name, which the text tower reads, and to its number."""

    table: str | None = None
    """A table that raycl brings along: a key, a tab, a name."""
    file: str | None = None
    """A file of the data set with a key, and perhaps a name, in each line."""
    pattern: str = r"(?P<key>.+)"
    """A regular expression for a line of `file`, with the group `key` and perhaps `name`."""
    listed: tuple[str, ...] = ()
    """The keys in order, where no file tells them."""
    renamed: dict[str, str] = {}
    """Names that are not what their key would make them."""
    strip: str = ""
    """A regular expression for what is taken out of a key to make a name."""
    without: tuple[str, ...] = ()
    """Keys that are no class of the benchmark."""


class Download(_Table):
    """One file that can be fetched."""

    url: str
    file: str
    mib: float | None = None
    md5: str | None = None
    unpack: bool = True
    top: str = "."
    """The folder within the archive that becomes the data set's own."""
    inner: tuple[str, ...] = ()
    """Archives within it, below `top`, that are unpacked where they lie."""


class ByHand(_Table):
    """A file that no program may fetch, and where a person finds it."""

    file: str
    where: str


class Entry(_Table):
    """One data set."""

    name: str
    title: str
    about: str = ""
    """What one must know of it: whose split, which quirks."""
    home: str | None = None
    licence: str | None = None
    classes: int
    counts: dict[Slot, int] | None = None
    per_class: dict[Slot, int] | None = None
    """Images of each class, where all have as many."""
    official: bool = True
    """Whether its test set is the official or the customary one."""
    tasks: int | None = None
    """Into how many tasks papers cut it."""
    template: str = "a photo of a {}."
    """The prompt that papers write for it by hand."""
    folders: tuple[str, ...]
    """What its folder below the root of data sets may be called; the first is made."""
    names: Names = Names()
    layouts: tuple[Layout, ...]
    """Looked for in this order."""
    downloads: tuple[Download, ...] = ()
    by_hand: tuple[ByHand, ...] = ()
    checksums: dict[str, str] = {}
    """MD5 of files that `verify` reads whole."""

    @property
    def mib(self) -> float | None:
        """What a download would bring, as far as every size is known."""
        sizes = [download.mib for download in self.downloads]
        known = [size for size in sizes if size is not None]
        return sum(known) if sizes and len(known) == len(sizes) else None
