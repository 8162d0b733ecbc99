"""CGIL whole on folders of real photographs; they lie where RAYCL_DATA says, or the tests skip."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raycl.config.backbones import Backbone
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.generators import GaussianGenerator
from raycl.config.methods import CGIL, AlignPrompts
from raycl.config.streams import FolderStream
from raycl.engine.run import RunResult, run


def exported(name: str, root: Path, each: dict[str, int], classes: int) -> Path:
    """The first images of each class and split, in folders; the digits have no split."""
    file = Path(os.environ.get("RAYCL_DATA", "")) / "images" / f"{name}.parquet"
    if not os.environ.get("RAYCL_DATA") or not file.is_file():
        pytest.skip(f"RAYCL_DATA has no images/{name}.parquet")
    table = pq.ParquetFile(file).read(use_threads=False)
    names = table.schema.metadata[b"classnames"].decode().split("\n")
    taken: Counter[tuple[str, int]] = Counter()
    columns = (table[column].to_pylist() for column in ("image", "label", "split"))
    for image, label, split in zip(*columns, strict=True):
        taken[split, label] += 1
        if label < classes and taken[split, label] <= each.get(split or "", 0):
            folder = root / (split or "") / names[label].replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{taken[split, label]:04d}.jpg").write_bytes(image)
    return root


def cgil(folder: Path, store: Path, backbone: Backbone, tasks: int, epochs: int) -> RunResult:
    experiment = Experiment(
        method=CGIL(generator=GaussianGenerator(), align=AlignPrompts(epochs=epochs)),
        stream=FolderStream(paths=(str(folder),), tasks=tasks),
        backbone=backbone,
    )
    return run(experiment, Execution(store=str(store)))


@pytest.mark.parametrize("name", ["clothing_small_96", "sign_digits_64"])
def test_cgil_learns_photographs_with_tiny_clip(tmp_path: Path, name: str) -> None:
    folder = exported(name, tmp_path / name, {"train": 60, "test": 20, "": 80}, classes=4)
    result = cgil(folder, tmp_path / "store", Backbone(name="tiny-clip"), tasks=2, epochs=20)
    assert result.metrics["last_pooled"] > 40, "four classes: chance is 25 %"
    assert result.values["stream"] == name
    again = cgil(folder, tmp_path / "store", Backbone(name="tiny-clip"), tasks=2, epochs=20)
    assert again.computed == {} and again.values == result.values


def test_cgil_runs_whole_on_a_large_model(tmp_path: Path) -> None:
    """A ViT-B/32 of random weights, through open_clip's own factory."""
    folder = exported("sign_digits_64", tmp_path / "signs", {"": 6}, classes=4)
    backbone = Backbone(name="ViT-B-32:random", batch=8)
    result = cgil(folder, tmp_path / "store", backbone, tasks=2, epochs=1)
    assert [len(row) for row in result.values["r_union"]] == [2, 2]
    assert all(cell is not None for row in result.values["r_union"] for cell in row)
    assert result.values["backbone"] == "ViT-B-32:random"
