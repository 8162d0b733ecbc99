"""Small embedding sets in both formats, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CLASSES, WIDTH = 6, 16


def arrays(
    *,
    classes: int = CLASSES,
    train: int = 8,
    test: int = 5,
    val: int = 0,
    seed: int = 0,
    noise: float = 0.3,
) -> dict[str, Any]:
    """A learnable set: noisy copies of one direction per class, with text near it."""
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=(classes, WIDTH))

    def split(n: int) -> tuple[Any, Any]:
        y = np.repeat(np.arange(classes), n).astype(np.int16)
        x = centre[y] + noise * generator.normal(size=(len(y), WIDTH))
        return x.astype(np.float16), y

    out: dict[str, Any] = {"classnames": np.array([f"thing {c}" for c in range(classes)])}
    for name, n in (("train", train), ("test", test), ("val", val)):
        out[f"{name}_x"], out[f"{name}_y"] = split(n)
    text = centre + 0.5 * generator.normal(size=centre.shape)
    out["text"] = text.astype(np.float16)
    out["text_has"] = np.ones(classes, bool)
    return out


def save_npz(path: Path, values: Mapping[str, Any]) -> Path:
    np.savez(path, **values)
    return path


def save_parquet(path: Path, values: Mapping[str, Any], *, domain: str | None = None) -> Path:
    """The same set as `save_npz` writes, in the other format."""
    pq.write_table(as_table(values, domain=domain), path)
    return path


def as_table(values: Mapping[str, Any], *, domain: str | None = None) -> pa.Table:
    parts = [(s, values[f"{s}_x"], values[f"{s}_y"]) for s in ("train", "test", "val")]
    has = np.flatnonzero(values["text_has"])
    parts.append(("text", values["text"][has], has))
    x = np.concatenate([part[1] for part in parts])
    y = np.concatenate([np.asarray(part[2], np.int64) for part in parts])
    splits = [name for name, rows, _ in parts for _ in range(len(rows))]
    columns: dict[str, Any] = {
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1]),
        "label": pa.array(y),
        "class_name": pa.array([str(values["classnames"][c]) for c in y]),
        "split": pa.array(splits),
    }
    if domain is not None:
        columns["domain"] = pa.array([domain] * len(y))
    return pa.table(columns)
