"""A column of image files in Parquet or Arrow, read by row in bounded memory.

Guarantees: a file whose images fit is read once; of a larger one a few row groups are held,
those asked for last. Arrow files are mapped and hold nothing. A fault of the file is told as
such, never as a corrupt image.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raycl.errors import StoreError

HELD_BYTES = 1 << 30
"""Of images as they are stored, by one file."""


class EncodedColumn:
    """The bytes of an image column by row; None where a row holds none."""

    def __init__(self, path: Path, column: str) -> None:
        self.path, self.column = path, column
        self._held: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._reading = threading.Lock()

    def get(self, row: int) -> bytes | None:
        """The image file in a row."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        data = self._group(group)[row - int(self._starts[group])].as_py()
        return None if not data else bytes(data)

    @cached_property
    def _metadata(self) -> Any:
        try:
            with pq.ParquetFile(self.path) as file:
                return file.metadata
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    @cached_property
    def _starts(self) -> Any:
        if self.path.suffix == ".arrow":
            return np.zeros(1, np.int64)
        groups = range(self._metadata.num_row_groups)
        return np.cumsum([0, *(self._metadata.row_group(g).num_rows for g in groups)])[:-1]

    def _group(self, group: int) -> pa.ChunkedArray:
        with self._reading:
            if group not in self._held:
                self._held[group] = self._read(group)
                while len(self._held) > 1 and self._bytes() > HELD_BYTES:
                    self._held.popitem(last=False)
            self._held.move_to_end(group)
            return self._held[group]

    def _bytes(self) -> int:
        if self.path.suffix == ".arrow":
            return 0  # mapped
        return sum(int(column.nbytes) for column in self._held.values())

    def _read(self, group: int) -> pa.ChunkedArray:
        try:
            if self.path.suffix == ".arrow":
                column = read_arrow(self.path)[self.column]
            else:
                with pq.ParquetFile(self.path) as file:
                    table = file.read_row_group(group, columns=[self.column], use_threads=False)
                column = table[self.column]
        except (pa.ArrowException, OSError) as error:
            # Not a DataError: that would be about one image, which may be left out.
            raise self._unreadable(error) from error
        return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column

    def _unreadable(self, error: Exception) -> StoreError:
        return StoreError(f"the images in {self.path.name} cannot be read", do=str(error))


def read_arrow(path: Path) -> pa.Table:
    """A table in Arrow's stream or file format, mapped into memory."""
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def image_type(kind: pa.DataType) -> pa.DataType:
    """Hugging Face wraps the bytes into a struct with the path."""
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return kind.field("bytes").type
    return kind


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column can hold image files."""
    inner = image_type(kind)
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))
