"""Writes a source as an embedding set, which the stream `embeddings:FILE` reads.

Guarantees a whole file or none, with text rows, and that what is read back is what was
written: the same vectors bit for bit, names, splits and domains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raycl.errors import ConfigError, DataError
from raycl.streams.source import Source
from raycl.whole_files import whole_file


def write_set(source: Source, path: Path) -> None:
    """The source as .parquet or .npz, as the name says."""
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    try:
        with whole_file(path) as aside, aside.open("xb") as file:
            write(source, file)
    except OSError as error:
        raise DataError(
            f"the embedding set cannot be written: {error.strerror or error}", got=str(path)
        ) from error


def _write_parquet(source: Source, file: BinaryIO) -> None:
    spoken = np.flatnonzero(source.has_text)
    parts: list[tuple[str, Any, Any]] = [
        ("train", source.train.x, source.train.y),
        ("val", source.validation.x, source.validation.y),
        ("test", source.test.x, source.test.y),
        ("text", source.text[spoken], spoken),
    ]
    x = np.concatenate([part[1].reshape(-1, source.width) for part in parts]).astype(np.float32)
    label = np.concatenate([part[2] for part in parts]).astype(np.int64)
    names, domains = pa.array(source.class_names), pa.array(source.domains)
    table = pa.table(
        {
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), source.width),
            "label": pa.array(label),
            "class_name": names.take(pa.array(label)),
            "split": pa.array([name for name, _, y in parts for _ in range(len(y))]),
            "domain": domains.take(pa.array(source.class_domain[label])),
        }
    )
    pq.write_table(table, file, compression="zstd")


def _write_npz(source: Source, file: BinaryIO) -> None:
    if len(source.domains) > 1:
        raise ConfigError(
            "an npz embedding set has no room for several domains",
            got=", ".join(source.domains),
            do="write a .parquet",
        )
    np.savez(
        file,
        train_x=source.train.x,
        train_y=source.train.y,
        val_x=source.validation.x,
        val_y=source.validation.y,
        test_x=source.test.x,
        test_y=source.test.y,
        text=source.text,
        text_has=source.has_text,
        classnames=np.array(source.class_names),
    )
