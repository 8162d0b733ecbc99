"""How payloads become bytes, by the end of their name.

    .json           any JSON value          .parquet, .arrow   pyarrow.Table
    .txt  .py       str                     .safetensors       dict of torch tensors
    .bin            bytes

Guarantees: what is read equals what was written; nothing is ever unpickled. torch and
the Parquet reader are imported by the first payload that needs them.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from raycl.config.spec import as_json
from raycl.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

SUFFIXES = (".json", ".parquet", ".arrow", ".safetensors", ".txt", ".py", ".bin")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def encode(name: str, value: Any) -> bytes | memoryview:
    """The bytes of a payload; its name says the format."""
    try:
        match suffix(name):
            case ".json":
                return json.dumps(as_json(value), allow_nan=False).encode()
            case ".parquet":
                return _write_parquet(value)
            case ".arrow":
                return _write_arrow(value)
            case ".safetensors":
                return _write_tensors(value)
            case ".txt" | ".py":
                return str.encode(value)
            case _:
                return memoryview(value).cast("B")
    except (TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"the payload {name!r} cannot be written: {error}",
            got=type(value).__name__,
            do=f"a payload that ends in {suffix(name)} takes another type",
        ) from error


def decode(name: str, data: bytes | memoryview) -> Any:
    """The value of a payload, from bytes that were checked already. A table in Arrow's
    own format lies in these bytes; all else is copied out of them."""
    if suffix(name) == ".arrow":
        return _read_arrow(data)
    data = bytes(data)
    match suffix(name):
        case ".json":
            return json.loads(data)
        case ".parquet":
            return _read_parquet(data)
        case ".safetensors":
            return _read_tensors(data)
        case ".txt" | ".py":
            return data.decode()
        case _:
            return data


def suffix(name: str) -> str:
    """The known end of a payload's name; an error for a name that a store cannot take."""
    if _NAME.fullmatch(name):
        for known in SUFFIXES:
            if name.endswith(known):
                return known
    raise StoreError(
        "not a name for a payload",
        got=repr(name),
        do=f"use letters, digits, . _ - and one of the endings {' '.join(SUFFIXES)}",
    )


def _write_parquet(table: pa.Table) -> memoryview:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return memoryview(sink.getvalue())


def _read_parquet(data: bytes) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Not read_table: it brings in pandas, and threads that outlive us for small tables.
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def _write_arrow(table: pa.Table) -> memoryview:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def _read_arrow(data: bytes | memoryview) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(data))).read_all()


def _write_tensors(tensors: dict[str, torch.Tensor]) -> bytes:
    import safetensors.torch

    own: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory, as two views of one do.
        storage = plain.untyped_storage().data_ptr()
        own[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    return bytes(safetensors.torch.save(own))


def _read_tensors(data: bytes) -> dict[str, torch.Tensor]:
    import safetensors.torch

    return dict(safetensors.torch.load(data))
