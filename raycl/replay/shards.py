"""What a shard's vectors may be, and where they are read again when an object is lost.

Guarantees of `checked`: finite float16 or float32 rows of one width, at least one, C-ordered;
everything else is refused by the class's name. Reads nothing but what the store has checked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from raycl.errors import ConfigError, DataError
from raycl.store.store import Store

Matrix: TypeAlias = NDArray[Any]
Ints: TypeAlias = NDArray[np.int64]
Loader = Callable[[], Any]

DTYPES = ("float16", "float32")
_SHOWN = 5
_OPEN_ARRAYS = 4


@dataclass(frozen=True)
class ArtefactRows:
    """Rows of one array of an artefact: where a shard can be read again.

    `name` is the column of a table (features: "embedding") or the tensor of a safetensors
    payload; leading axes are flattened, so rows count through all of them.
    """

    key: str
    payload: str
    name: str
    rows: tuple[int, ...] | range


Source = ArtefactRows | Loader
"""A loader is called without arguments and gives the same vectors each time."""


def checked(name: str, vectors: Any, dtype: str | None) -> Matrix:
    """The vectors as an array of the buffer's dtype; `DataError` says whose are bad."""
    x = _as_array(name, vectors)
    if x.ndim != 2 or 0 in x.shape or x.dtype.name not in DTYPES:
        raise DataError(
            f"{name}: expected float16 or float32 vectors, one per row, at least one",
            got=f"{x.shape} of {x.dtype.name}",
            do="leave out classes without a sample; convert other types before they are added",
        )
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise DataError(
            f"{name}: {len(bad)} vectors hold NaN or infinity",
            got=f"rows {', '.join(str(row) for row in bad[:_SHOWN])}",
            do="embed those samples again or leave them out",
        )
    if dtype is None or x.dtype.name == dtype:
        return np.ascontiguousarray(x)
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(x, dtype=dtype)
    if not np.isfinite(cast).all():
        raise DataError(
            f"{name}: a vector does not fit into {dtype}",
            got=f"{float(np.abs(x).max()):.3g}",
            do="keep this buffer in float32",
        )
    return cast


def _as_array(name: str, vectors: Any) -> Matrix:
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().cpu()
        if str(vectors.dtype) == "torch.bfloat16":
            raise DataError(f"{name}: NumPy has no bfloat16", do="convert to float32 or float16")
        vectors = vectors.numpy()
    x = np.asarray(vectors)
    if x.dtype.byteorder == ">":
        x = x.astype(x.dtype.newbyteorder("="))
    return x


class Shelf:
    """Arrays of artefacts, read once for the many shards that are rows of them."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._open: OrderedDict[tuple[str, str, str], Matrix] = OrderedDict()

    def read(self, source: Source) -> Any:
        """The vectors behind a source."""
        if not isinstance(source, ArtefactRows):
            return source()
        array = self._array(source)
        rows = source.rows
        if isinstance(rows, range):
            index: Any = np.arange(rows.start, rows.stop, rows.step)
        else:
            index = np.asarray(rows, np.int64)
        if len(index) and not 0 <= index.min() <= index.max() < len(array):
            raise DataError(
                f"{source.key} has {len(array)} rows of {source.name!r}",
                got=f"rows {index.min()} to {index.max()}",
            )
        return array[index]

    def _array(self, source: ArtefactRows) -> Matrix:
        place = (source.key, source.payload, source.name)
        if place not in self._open:
            self._open[place] = _flat(source, self._payload(source))
            if len(self._open) > _OPEN_ARRAYS:
                self._open.popitem(last=False)
        self._open.move_to_end(place)
        return self._open[place]

    def _payload(self, source: ArtefactRows) -> Any:
        if self._store is None:
            raise ConfigError(
                "rows of an artefact need the store that holds it",
                got=source.key,
                do="give the buffer its store",
            )
        record = self._store.record(source.key)
        if record is None or source.payload not in record.payloads:
            raise DataError(
                f"the store has no payload {source.payload!r} of {source.key}",
                got=self._store.uri,
                do="run the command that makes it again",
            )
        return self._store.read(record, only=[source.payload])[source.payload]


def _flat(source: ArtefactRows, payload: Any) -> Matrix:
    """The named array of a payload as a matrix."""
    names = payload.column_names if hasattr(payload, "column_names") else list(payload)
    if source.name not in names:
        raise DataError(
            f"{source.key} has no array of that name in {source.payload}",
            got=repr(source.name),
            do=f"it has {', '.join(map(str, names))}",
        )
    found = payload[source.name]
    if hasattr(found, "num_chunks"):
        column = found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=True)
        return np.asarray(flat).reshape(len(column), -1)
    array = _as_array(source.key, found)
    return array.reshape(-1, array.shape[-1])
