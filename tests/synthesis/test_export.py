"""What `raycl synth` writes, and what it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from raycl.errors import DataError
from raycl.synthesis import export
from raycl.synthesis.export import MANIFEST, ROWS, SHEET, write_images
from tests.cli.test_commands import Shell
from tests.cli.test_commands import shell as shell
from tests.synthesis.made_models import digest_of, made_images, made_prompts, small, small_model

QUICK = ("--set", "steps=1", "--set", "chunk=4")


def synth(shell: Shell, *args: str) -> Any:
    return shell("synth", "--prompts", "p.csv", "--model", small_model(), *QUICK, *args)


def test_a_folder_that_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = made_images(tmp_path / "store", made_prompts(6), small())
    monkeypatch.setattr(export, "SHARD_BYTES", images.notes[0]["bytes"] * 4)
    labels = {"label": [0, 1, 2, 0, 1, None]}
    manifest = json.loads(write_images(images, labels, tmp_path / "out").read_text())
    assert (manifest["prompts"], manifest["images"], len(manifest["shards"])) == (6, 6, 2)
    rows: list[dict[str, Any]] = []
    for shard in manifest["shards"]:
        file = tmp_path / "out" / shard["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == shard["sha256"]
        with pq.ParquetFile(file) as opened:
            rows += opened.read(use_threads=False).to_pylist()
    assert [row["label"] for row in rows] == labels["label"]
    told = [json.loads(line) for line in (tmp_path / "out" / ROWS).read_text().splitlines()]
    for row, line in zip(rows, told, strict=True):
        assert digest_of(row["image"]) == row["sha256"] == line["sha256"]
        assert (row["prompt"], row["seed"]) == (line["prompt"], line["seed"])
        with Image.open(io.BytesIO(row["image"])) as opened:
            assert opened.size == (32, 32)
    with Image.open(tmp_path / "out" / SHEET) as sheet:
        assert sheet.size == (1000, 124)
    monkeypatch.setattr(export, "SHARD_BYTES", 1 << 30)
    before = (tmp_path / "out" / SHEET).read_bytes()
    write_images(images, labels, tmp_path / "out")
    assert (tmp_path / "out" / SHEET).read_bytes() == before
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1, "old shards are gone"


def test_what_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written there"):
        export.refuse_unwritable(tmp_path / "file" / "out")
    with pytest.raises(DataError, match="needed for the images"):
        export.refuse_columns(["label", "sha256"])


def test_synth_from_a_shell(shell: Shell) -> None:
    Path("p.csv").write_text("prompt,label\na seven,7\nan eight,8\n")
    first = synth(shell, "--out", "o", "--images-per-prompt", "3", "--json")
    assert first.code == 0 and len(first.out.splitlines()) == 1
    assert (first.json["images"], first.json["painted"]) == (6, 6)
    assert first.json["computed"] == {"images": 2} and first.json["images_per_second"] > 0
    again = synth(shell, "--out", "o", "--images-per-prompt", "3").out
    assert "6 of 6 prompts" in again and "found in the store" in again
    assert sorted(os.listdir("o")) == sorted(["images-00000.parquet", MANIFEST, ROWS, SHEET])  # noqa: PTH208
    with pq.ParquetFile("o/images-00000.parquet") as opened:
        table = opened.read(use_threads=False)
    assert table["label"].to_pylist() == ["7"] * 3 + ["8"] * 3
    assert len(set(table["sha256"].to_pylist())) == 6


@pytest.mark.parametrize(
    ("args", "message"),
    [(("--out", "p.csv"), "--out is a folder"),
     (("--out", "o", "--set", "scheduler=euler_a"), "draws noise at every step"),
     (("--out", "o", "--set", "stepz=3"), "did you mean 'steps'"),
     (("--out", "o", "--workers", "2"), "--pool ray"),
     (("--out", "o", "--prompts", "none.csv"), "no such file of prompts"),
     (("--out", "o", "--prompts", "q.csv"), "no column 'prompt'"),
     (("--out", "o", "--model", "no-such-model"), "no such text-to-image model")],
)  # fmt: skip
def test_bad_input_ends_with_two(shell: Shell, args: tuple[str, ...], message: str) -> None:
    Path("p.csv").write_text("prompt\na seven\n")
    Path("q.csv").write_text("text\na seven\n")
    answer = synth(shell, *args)
    assert answer.code == 2 and message in answer.err
    assert not Path("o", MANIFEST).exists()
