"""Small pictures, folders of them and Parquet files of them, for tests."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raycl.config.streams import FolderStream
from raycl.streams.images import ImageSet, read_images


def pixels(seed: int = 0, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A picture like no other."""
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(values.astype(np.uint8))


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The file of a picture."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def save_folder(root: Path, counts: Mapping[str, int], suffix: str = ".png") -> Path:
    """`counts["cat"]` pictures in root/cat; the name may hold a split before a slash."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            seed = sum(map(ord, folder)) * 1000 + i
            (root / folder / f"{i:03d}{suffix}").write_bytes(encoded(pixels(seed)))
    return root


def save_images(
    path: Path,
    label: Sequence[Any],
    /,
    *,
    names: Sequence[str] | None = ("cat", "dog"),
    **columns: Sequence[Any],
) -> Path:
    """A Parquet file of one picture per label, with class names in the schema's metadata."""
    images = pa.array([encoded(pixels(i)) for i in range(len(label))], pa.binary())
    table = pa.table({"image": images, "label": label, **columns})
    if names is not None:
        table = table.replace_schema_metadata({"classnames": "\n".join(names)})
    pq.write_table(table, path)
    return path


def read(*paths: Path, **options: Any) -> ImageSet:
    """The set that `folder:` reads."""
    return read_images(FolderStream(paths=tuple(map(str, paths)), **options))


def by_split(images: ImageSet) -> dict[str, dict[str, int]]:
    """How many images each class has in each split."""
    out: dict[str, dict[str, int]] = {}
    for label, split in zip(images.labels, images.splits, strict=True):
        counts = out.setdefault(str(split), {})
        name = images.class_names[label]
        counts[name] = counts.get(name, 0) + 1
    return out
