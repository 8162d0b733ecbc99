"""Writes captions as one Parquet file, as other programs and `raycl synth` read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raycl.captions.parallel import ClassCaptions
from raycl.errors import StoreError
from raycl.whole_files import whole_file

SCHEMA = pa.schema(
    {
        "task": pa.int32(),
        "class": pa.string(),
        "caption": pa.string(),
        "seed": pa.int64(),
        "source": pa.int64(),
        "score": pa.float32(),
    }
)


def captions_table(classes: Sequence[tuple[int, ClassCaptions]]) -> pa.Table:
    """One row per caption; each class comes with the task that it is of."""
    rows = [
        {
            "task": task,
            "class": c.name,
            "caption": caption.text,
            "seed": caption.seed,
            "source": caption.source,
            "score": caption.score,
        }
        for task, c in classes
        for caption in c.captions
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write_captions(table: pa.Table, out: Path) -> None:
    """The file, whole or not at all."""
    try:
        with whole_file(out) as aside:
            pq.write_table(table, aside)
    except OSError as error:
        raise StoreError(
            f"the captions cannot be written: {error.strerror}", got=str(out), do="name another"
        ) from error
