"""Real photographs through the whole path; they lie where RAYCL_DATA says, or the tests skip."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raycl.compute.local_pool import LocalPool
from raycl.config.backbones import Backbone
from raycl.config.streams import FolderStream
from raycl.embedding.source import embedded
from raycl.store.store import Store
from raycl.streams.source import Source


def real(name: str) -> Path:
    file = Path(os.environ.get("RAYCL_DATA", "")) / "images" / f"{name}.parquet"
    if not os.environ.get("RAYCL_DATA") or not file.is_file():
        pytest.skip(f"RAYCL_DATA has no images/{name}.parquet")
    return file


def nearest_mean(source: Source) -> float:
    """Percent of test vectors whose class mean is the nearest."""

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    train = unit(source.train.x)
    means = [train[source.train.y == c].mean(axis=0) for c in range(source.classes)]
    answer = (unit(source.test.x) @ unit(np.stack(means)).T).argmax(axis=1)
    return 100 * float((answer == source.test.y).mean())


@pytest.mark.parametrize(("name", "least"), [("clothing_small_96", 15), ("sign_digits_64", 30)])
def test_tiny_clip_tells_real_images_apart(tmp_path: Path, name: str, least: float) -> None:
    spec = FolderStream(paths=(str(real(name)),))
    store = Store.open(str(tmp_path / "store"))
    source = embedded(spec, Backbone(name="tiny-clip"), store=store, pool=LocalPool()).source
    assert source.classes == 10 and len(source.test) > 300
    assert nearest_mean(source) > least, "ten classes: chance is 10 %"


def test_a_large_model_takes_the_same_path(tmp_path: Path) -> None:
    """A random ViT-B/32 of open_clip's own factory, on a few images of each class."""
    table = pq.ParquetFile(real("sign_digits_64")).read(use_threads=False)
    labels = table["label"].to_numpy()
    rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[:3] for c in range(10)]))
    pq.write_table(table.take(rows), tmp_path / "few.parquet")
    spec = FolderStream(paths=(str(tmp_path / "few.parquet"),))
    backbone = Backbone(name="ViT-B-32:random", batch=8)
    store = Store.open(str(tmp_path / "store"))
    source = embedded(spec, backbone, store=store, pool=LocalPool()).source
    assert source.width == 512 and source.text.shape == (10, 512)
    assert len(source.train) + len(source.test) == 30
    again = embedded(spec, backbone, store=store, pool=LocalPool()).source
    assert np.array_equal(again.train.x, source.train.x)
    assert store.computed == {"text": 1, "features": 1, "features-chunk": 1}
