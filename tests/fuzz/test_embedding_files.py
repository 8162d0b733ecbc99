"""Files of vectors, npz and Parquet: dtypes, shapes, labels, names, class sizes of all kinds."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.asking import Desk, desk, examples
from tests.fuzz.hostile import honest_names, junk
from tests.streams.made_sets import arrays, as_table

WIDTH = 4


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """A set of vectors that may be just odd enough to be learnt from."""
    classes = draw(st.integers(1, 5))
    width = draw(st.sampled_from([1, 2, WIDTH]))
    sizes = st.lists(st.sampled_from([0, 1, 2, 3, 9, 9]), min_size=classes, max_size=classes)
    random = np.random.default_rng(draw(st.integers(0, 9)))
    out: dict[str, Any] = {}
    scale = draw(st.sampled_from([1, 1e-30, 1e30, 1e-3]))
    for split in ("train", "test", *draw(st.sampled_from([(), ("val",)]))):
        y = np.repeat(np.arange(classes), draw(sizes))
        x = random.normal(size=(len(y), width)) * scale
        if draw(st.booleans()) and len(x):
            x[:] = draw(st.sampled_from([1.0, -scale]))  # nothing that tells two apart
        out[f"{split}_x"], out[f"{split}_y"] = x.astype(np.float32), y.astype(np.int64)
    # numpy itself drops zeros at the end of a text.
    names = draw(st.lists(honest_names, min_size=classes, max_size=classes))
    out["classnames"] = np.array(names, dtype=str)
    if (who := draw(st.sampled_from(["all", "all", "some", "none"]))) != "none":
        out["text"] = random.normal(size=(classes, width)).astype(np.float32)
        if who == "some":
            has = st.lists(st.booleans(), min_size=classes, max_size=classes)
            out["text_has"] = np.array(draw(has))
    return out


DTYPES = (
    "f2",
    "f8",
    "i1",
    "i8",
    "u8",
    "?",
    "c8",
    "S3",
    "U3",
    "M8[s]",
    "m8[s]",
    "O",
    ">f4",
    "f4,i4",
)


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """The same with one or two faults that somebody's script may have made."""
    values = draw(tables())
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(values)))
        values[name] = draw(st.sampled_from(FAULTS))(values[name], draw)
        if values[name] is None:
            del values[name]
        if not values:
            break
    return values


def _as_dtype(array: Any, draw: st.DrawFn) -> Any:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    try:
        with np.errstate(all="ignore"):
            return np.asarray(array).astype(dtype)
    except (ValueError, TypeError):
        return np.zeros(np.shape(array), dtype)


def _reshaped(array: Any, draw: st.DrawFn) -> Any:
    array = np.asarray(array)
    shapes = [
        array.reshape(-1),
        array[None],
        array[..., None],
        array.T,
        array[:0],
        array[1:],
        np.concatenate([array, array]),
        array.reshape(-1)[0] if array.size else array,
    ]
    return draw(st.sampled_from(shapes))


def _spoilt_cells(array: Any, draw: st.DrawFn) -> Any:
    array = np.array(array)
    if not array.size:
        return array
    value = draw(st.sampled_from([np.nan, np.inf, 0, -1, 7, 2**40, 3e38, -(2**62)]))
    where = draw(st.sampled_from([0, -1, slice(None)]))
    try:
        with np.errstate(all="ignore"):
            array.reshape(-1)[where] = value
    except (ValueError, OverflowError, TypeError):
        pass
    return array


FAULTS = (
    _as_dtype,
    _reshaped,
    _spoilt_cells,
    _spoilt_cells,
    lambda array, draw: None,
    lambda array, draw: np.arange(3),
)

CLOSED = ("ncm", "slda", "zero_shot", "proto_fusion")
ONE = ("--set", "method.align.epochs=1")
FEW = (*ONE, "--set", "method.per_class=4")
TRAINED = (
    ("cgil", *FEW, "--set", "method.generator.kind=gaussian"),
    ("cgil", *FEW, "--set", "method.generator.kind=gmm"),
    ("real_replay", *FEW), ("finetune", *ONE), ("joint", *ONE), ("lada",), ("autoseed",),
    ("ranpac", "--set", "method.hidden=16"), ("rail", "--set", "method.hidden=16"), ("fecam",),
    ("tip_adapter",), ("slca",), ("rapf",), ("linear_probe",), ("wise_ft",), ("clts",), ("dmc",),
    ("dmc_ot",),
)  # fmt: skip


def saved(here: Desk, values: dict[str, Any]) -> Path:
    path = here.folder / "set.npz"
    np.savez(path, allow_pickle=True, **values)
    return path


def learn(here: Desk, path: Path, method: tuple[str, ...], tasks: int | None) -> None:
    cut = () if tasks is None else ("--set", f"stream.tasks={tasks}")
    here.ask("run", *method, "--stream", f"embeddings:{path}", *cut)


@examples(60)
@given(values=spoilt(), method=st.sampled_from(CLOSED))
def test_a_spoilt_npz(values: dict[str, Any], method: str) -> None:
    with desk() as here:
        learn(here, saved(here, values), (method,), None)


@examples(12)
@given(values=tables(), method=st.sampled_from(CLOSED), tasks=st.sampled_from([None, 1, 2]))
def test_an_odd_npz(values: dict[str, Any], method: str, tasks: int | None) -> None:
    with desk() as here:
        learn(here, saved(here, values), (method,), tasks)
        here.ask("report", "--html", "page.html")


@pytest.mark.parametrize("method", TRAINED, ids=" ".join)
@examples(2)
@given(values=tables(), tasks=st.sampled_from([None, 1, 2]))
def test_methods_on_an_odd_npz(
    method: tuple[str, ...], values: dict[str, Any], tasks: int | None
) -> None:
    with desk() as here:
        learn(here, saved(here, values), method, tasks)


COLUMNS = ("embedding", "label", "class_name", "split", "domain")
KINDS = (
    pa.string(), pa.int8(), pa.uint64(), pa.float16(), pa.bool_(), pa.binary(), pa.null(),
    pa.list_(pa.float32()), pa.list_(pa.string()), pa.list_(pa.list_(pa.float32())),
    pa.large_list(pa.int8()), pa.date32(), pa.decimal128(5, 2), pa.timestamp("s"),
    pa.dictionary(pa.int8(), pa.string()), pa.struct([("a", pa.int8())]),
    pa.map_(pa.string(), pa.int8()),
)  # fmt: skip


def _columns(draw: st.DrawFn, rows: int) -> Any:
    """A column of whatever Arrow knows."""
    kind = draw(st.sampled_from(KINDS))
    return pa.nulls(rows, kind) if draw(st.booleans()) else _filled(draw, kind, rows)


def _filled(draw: st.DrawFn, kind: Any, rows: int) -> Any:
    text = draw(honest_names)
    for value in (text, 1, 1.5, True, [1.0], [[1.0]], [text], {"a": 1}, [("a", 1)], text.encode()):
        try:
            return pa.array([value] * rows, kind)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue
    return pa.nulls(rows, kind)


@st.composite
def parquet(draw: st.DrawFn) -> Any:
    table = as_table(arrays(classes=3, train=3, test=2), domain="d")
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(COLUMNS))
        place = table.column_names.index(name) if name in table.column_names else None
        match draw(st.sampled_from(["drop", "other", "rename", "rows", "cells"])):
            case "drop" if place is not None and table.num_columns > 1:
                table = table.remove_column(place)
            case "other" if place is not None:
                table = table.set_column(place, name, _columns(draw, len(table)))
            case "rename" if place is not None:
                new = draw(honest_names)
                table = table.rename_columns([new if c == name else c for c in table.column_names])
            case "rows":
                table = table.slice(draw(st.integers(0, 20)), draw(st.integers(0, 5)))
            case _ if place is not None and name != "embedding" and len(table):
                cells = table[name].to_pylist()
                odd = (
                    draw(honest_names)
                    if isinstance(cells[0], str)
                    else draw(st.sampled_from([-1, 3, 10**12, -(2**63)]))
                )
                cells[draw(st.integers(0, len(cells) - 1))] = odd
                with contextlib.suppress(pa.ArrowException, OverflowError):
                    table = table.set_column(place, name, pa.array(cells))
    return table


@examples(80)
@given(table=parquet(), method=st.sampled_from(CLOSED))
def test_parquet(table: Any, method: str) -> None:
    with desk() as here:
        pq.write_table(table, here.folder / "set.parquet")
        learn(here, here.folder / "set.parquet", (method,), None)


@examples(30)
@given(
    data=junk, suffix=st.sampled_from(["npz", "parquet", "npy", "txt", ""]), cut=st.integers(1, 400)
)
def test_files_that_are_none(data: bytes, suffix: str, cut: int) -> None:
    with desk() as here:
        path = here.write(f"set.{suffix}", data)
        assert here.ask("run", "ncm", "--stream", f"embeddings:{path}").code == 2
        if suffix in ("npz", "parquet"):
            whole = here.folder / f"whole.{suffix}"
            if suffix == "npz":
                np.savez(whole, **arrays(classes=2))
            else:
                pq.write_table(as_table(arrays(classes=2)), whole)
            here.write(path.name, whole.read_bytes()[:-cut])
            assert here.ask("run", "ncm", "--stream", f"embeddings:{path}").code == 2
