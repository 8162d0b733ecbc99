"""Small trees in the layouts of real data sets, made from what the catalogue says of each."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from raycl.config.sources.catalogue import TABLES, entry_of
from raycl.config.sources.entry import (
    CifarLayout,
    ColumnsPart,
    CoOpLayout,
    Entry,
    FilesLayout,
    FolderPart,
    IdxLayout,
    Layout,
    LinesPart,
    NumberedPart,
    PairsPart,
    Part,
    ShardsLayout,
)
from raycl.streams.sources.placing import OVERRIDE
from tests.streams.made_images import encoded, pixels

CLASSES = 4
EACH = {"train": 5, "val": 3, "test": 2}


@dataclass(frozen=True)
class Made:
    """A tree, and what should be read from it."""

    folder: Path
    names: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    """By split and class name."""


def make_source(root: Path, name: str, layout: int = 0) -> Made:
    """The data set below a root, in one of its layouts, with what is expected scaled down."""
    entry = entry_of(name)
    folder = root / entry.folders[0]
    folder.mkdir(parents=True)
    made = _Maker(entry, folder).make(entry.layouts[layout])
    sums = {split: sum(each.values()) for split, each in made.counts.items()}
    whole = {"all": sums["all"]} if "all" in sums else sums
    tree = {"classes": len(made.names), "counts": whole, "per_class": None, "checksums": {}}
    (folder / OVERRIDE).write_text(yaml.safe_dump(tree))
    return made


class _Maker:
    def __init__(self, entry: Entry, folder: Path) -> None:
        self.entry, self.folder = entry, folder
        self.serial = 0

    def make(self, layout: Layout) -> Made:
        match layout:
            case FilesLayout():
                return self._files(layout)
            case CoOpLayout():
                return self._coop(layout)
            case CifarLayout():
                return self._cifar(layout)
            case IdxLayout():
                return self._idx(layout)
            case ShardsLayout():
                return self._shards(layout)
            case _:
                assert_never(layout)

    def _made(self, names: list[str], splits: list[str]) -> Made:
        counts = {s: dict.fromkeys(names, EACH.get(s, 5)) for s in splits}
        return Made(self.folder, tuple(names), counts)

    def image(self, relative: str) -> None:
        """A picture like no other."""
        self.serial += 1
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        form = "PNG" if path.suffix.lower() == ".png" else "JPEG"
        path.write_bytes(encoded(pixels(self.serial), form))

    def _files(self, layout: FilesLayout) -> Made:
        keys = self._keys(layout)
        splits = []
        for slot, part in layout.parts.items():
            splits += ["train", "test"] if isinstance(part, NumberedPart) else [str(slot)]
            self._part(part, str(slot), list(keys))
        return self._made(list(keys.values()), splits)

    def _keys(self, layout: FilesLayout) -> dict[str, str]:
        """Keys of a few classes and their names, with the file that tells them."""
        names = self.entry.names
        if names.table:
            lines = (TABLES / names.table).read_text().splitlines()[1:]
            return dict(line.split("\t") for line in lines[3 : 3 + CLASSES])
        if names.listed:
            spoken = {key: names.renamed.get(key, _plain(key)) for key in names.listed[:CLASSES]}
            numbers = any(getattr(p, "key", "") == "label" for p in layout.parts.values())
            return {str(c): n for c, n in enumerate(spoken.values())} if numbers else spoken
        if names.file:
            lines, keys = _names_file(names.file)
            (self.folder / names.file).write_text("\n".join(lines) + "\n")
            return keys
        return {f"kind_{c}": f"kind {c}" for c in range(CLASSES)}

    def _part(self, part: Part, slot: str, keys: list[str]) -> None:
        rows = list(_rows(slot, keys))
        match part:
            case FolderPart():
                for key, n in rows:
                    below = f"{part.below}/" if part.below else ""
                    self.image(f"{part.root}/{key}/{below}{slot}{n}.JPEG")
            case LinesPart():
                self._lines(part, slot, rows)
            case PairsPart():
                self._pairs(part, slot, rows, keys)
            case ColumnsPart():
                self._columns(part, rows)
            case NumberedPart():
                self._numbered(part, keys)
            case _:
                assert_never(part)

    def _lines(self, part: LinesPart, slot: str, rows: list[tuple[str, int]]) -> None:
        lines = []
        for key, n in rows:
            path = f"{self.serial + 1:07d}"
            if r"\.avi" in part.pattern:
                path = f"v_{key}_{slot}{n}"
                lines.append(f"{key}/{path}.avi 1")
            elif r"\t" in part.pattern:
                path = f"val_{self.serial}.JPEG"
                lines.append(f"{path}\t{key}\t0\t0\t9\t9")
            else:
                lines.append(f"{path} {key}")
            self.image(part.image.format(path=path, key=key))
        self._write(part.file, "\n".join(lines) + "\n")

    def _pairs(
        self, part: PairsPart, slot: str, rows: list[tuple[str, int]], keys: list[str]
    ) -> None:
        data, numbers = [], []
        for key, n in rows:
            inner = f"{key}/{slot}{n}.jpg" if part.key == "folder" else f"{slot}_{key}_{n}.jpg"
            self.image(f"{part.root}/{inner}")
            before = part.strip.replace(".*", "data/") if part.strip.isprintable() else ""
            data.append((before if part.strip else "") + inner)
            numbers.append(keys.index(key))
        tree = {"data": data, part.labels: numbers}
        text = json.dumps(tree) if part.file.endswith("json") else yaml.safe_dump(tree)
        self._write(part.file, text)

    def _columns(self, part: ColumnsPart, rows: list[tuple[str, int]]) -> None:
        self._write(part.file, "")
        with (self.folder / part.file).open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow([part.path, *part.keys, "OTHER"])
            for key, n in rows:
                path = f"ISIC_{key}_{n}"
                table.writerow([path, *(float(k == key) for k in part.keys), 0.0])
                self.image(part.image.format(path=path))
            table.writerow(["ISIC_left_out", *(0.0 for _ in part.keys), 1.0])

    def _numbered(self, part: NumberedPart, keys: list[str]) -> None:
        lines: dict[str, list[str]] = {part.images: [], part.labels: [], part.training: []}
        number = 0
        for key in keys:
            for split in ("train", "test"):
                for n in range(EACH[split]):
                    number += 1
                    path = f"{int(key):03d}.bird/{split}{n}.jpg"
                    self.image(f"{part.root}/{path}")
                    lines[part.images].append(f"{number} {path}")
                    lines[part.labels].append(f"{number} {key}")
                    lines[part.training].append(f"{number} {int(split == 'train')}")
        for file, text in lines.items():
            self._write(file, "\n".join(text) + "\n")

    def _coop(self, layout: CoOpLayout) -> Made:
        names = [f"Kind_{c}" for c in range(CLASSES)]
        tree: dict[str, Any] = {}
        for split in ("train", "val", "test"):
            tree[split] = []
            for c, name in enumerate(names):
                for n in range(EACH[split]):
                    path = f"{name}/{split}{n}.jpg"
                    self.image(f"{layout.images}/{path}")
                    tree[split].append([path, c, name])
        self._write(layout.file, json.dumps(tree))
        return self._made([_plain(n) for n in names], ["train", "val", "test"])

    def _cifar(self, layout: CifarLayout) -> Made:
        names = [f"sea_thing_{c}" for c in range(CLASSES)]
        self._write(f"{layout.folder}/{layout.names}", "\n".join(names) + "\n\n")
        for split in ("train", "test"):
            files = getattr(layout, split)
            labels = np.tile(np.arange(CLASSES), EACH[split])
            for file, part in zip(files, np.array_split(labels, len(files)), strict=True):
                records = np.random.default_rng(len(part)).integers(
                    0, 256, (len(part), layout.labels + 3072)
                )
                records[:, layout.labels - 1] = part
                (self.folder / layout.folder / file).write_bytes(records.astype(np.uint8).tobytes())
        return self._made([_plain(n) for n in names], ["train", "test"])

    def _idx(self, layout: IdxLayout) -> Made:
        for split in ("train", "test"):
            labels = np.tile(np.arange(10), EACH[split]).astype(np.uint8)
            images = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28))
            images = images.astype(np.uint8)
            for file, array in zip(getattr(layout, split), (images, labels), strict=True):
                head = np.asarray([0x0800 + array.ndim, *array.shape], ">u4").tobytes()
                (self.folder / layout.folder / file).write_bytes(head + array.tobytes())
        return self._made([str(digit) for digit in range(10)], ["train", "test"])

    def _shards(self, layout: ShardsLayout) -> Made:
        names = [f"Kind_{c}" for c in range(CLASSES)]
        for split in ("train", "test"):
            save_shard(
                self.folder / f"data/{split}-00000-of-00001.parquet",
                np.tile(np.arange(CLASSES), EACH[split]),
                names,
                label=layout.label or "label",
            )
        return self._made([_plain(n) for n in names], ["train", "test"])

    def _write(self, relative: str, text: str) -> None:
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def save_shard(
    path: Path,
    labels: Any,
    names: list[str] | None,
    *,
    label: str = "label",
    image: str = "image",
    **columns: Any,
) -> Path:
    """A file as Hugging Face writes it: a struct of bytes and path, names in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = sum(map(ord, path.name))
    rows = [{"bytes": encoded(pixels(start + i)), "path": f"{i}.png"} for i in range(len(labels))]
    table = pa.table({image: rows, label: pa.array(list(labels)), **columns})
    if names is not None:
        feature = {"names": names, "_type": "ClassLabel"}
        told = {"info": {"features": {image: {"_type": "Image"}, label: feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    if path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, path, row_group_size=3)
    return path


def _rows(slot: str, keys: list[str]) -> Iterator[tuple[str, int]]:
    return ((key, n) for key in keys for n in range(EACH.get(slot, 5)))


def _plain(key: str) -> str:
    return " ".join(key.replace("_", " ").split())


def _names_file(file: str) -> tuple[list[str], dict[str, str]]:
    match file:
        case "variants.txt":
            keys = [f"DC-{c} heavy" for c in range(CLASSES)]
            return keys, {key: key for key in keys}
        case "classes.txt":
            lines = [f"{c + 1} {c + 1:03d}.Grey_Bird_{c}" for c in range(CLASSES)]
            return lines, {str(c + 1): f"Grey Bird {c}" for c in range(CLASSES)}
        case "words.txt":
            keys = {f"n0000000{c}": f"water thing {c}" for c in range(CLASSES)}
            lines = [f"{key}\t{name}, other word" for key, name in keys.items()]
            return [*lines, "n99999999\tnever seen"], keys
    raise AssertionError(file)
