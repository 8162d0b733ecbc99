"""What is refused before any work: models that are incomplete, files of prompts that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl.config.synthesis import Synthesis
from raycl.errors import ConfigError, DataError
from raycl.synthesis.models import model_files
from raycl.synthesis.prompts import Prompt, read_prompts
from tests.synthesis.made_models import small_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_model(), tmp_path / "model"))


@pytest.mark.parametrize(
    ("gone", "named"),
    [("unet", "unet/"), ("unet/config.json", "unet/config.json"),
     ("vae/diffusion_pytorch_model.safetensors", r"vae/\*\.safetensors"),
     ("tokenizer/tokenizer.json", "tokenizer/tokenizer.json"),
     ("scheduler/scheduler_config.json", "scheduler/scheduler_config.json"),
     ("model_index.json", "model_index.json")],
)  # fmt: skip
def test_an_incomplete_folder_says_what_it_lacks(folder: Path, gone: str, named: str) -> None:
    place = folder / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(DataError, match=rf"incomplete: it lacks .*{named}"):
        model_files(Synthesis(model=str(folder)))


def test_pickled_weights_are_not_read(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(DataError, match="pickled weights are not read"):
        model_files(Synthesis(model=str(folder)))


def test_a_missing_shard_is_named(folder: Path) -> None:
    unet = folder / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "d-00001-of-00002.safetensors")
    names = {"a": "d-00001-of-00002.safetensors", "b": "d-00002-of-00002.safetensors"}
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(DataError, match="lacks unet/d-00002-of-00002"):
        model_files(Synthesis(model=str(folder)))


def test_a_broken_index_and_broken_weights(folder: Path, tmp_path: Path) -> None:
    import torch

    from raycl.synthesis.pipeline import Painter

    spec = Synthesis(model=str(folder))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
    with pytest.raises(DataError, match="cannot be loaded"):
        Painter(spec, torch.device("cpu"))
    (folder / "model_index.json").write_text("{")
    with pytest.raises(DataError, match="cannot be understood"):
        model_files(spec)


def test_a_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="did you mean tiny-sd"):
        model_files(Synthesis(model="tinysd"))
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    with pytest.raises(DataError, match=r"(?s)ORG/none is not on this machine.*hf download"):
        model_files(Synthesis(model="ORG/none"))


def test_a_checker_that_is_not_there_detects_nothing() -> None:
    with pytest.raises(ConfigError, match="no safety checker"):
        model_files(Synthesis(model=small_model(), safety="detect"))


def test_half_precision_wants_a_gpu() -> None:
    import torch

    from raycl.synthesis.pipeline import Painter

    with pytest.raises(ConfigError, match="fp16 wants a GPU"):
        Painter(Synthesis(model=small_model(), dtype="fp16"), torch.device("cpu"))


def test_files_of_prompts_say_the_same(tmp_path: Path) -> None:
    rows = [{"prompt": "a, b", "seed": 4, "label": 1}, {"prompt": 'c "d"', "seed": 5, "label": 0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "p.csv").write_text('prompt,seed,label\n"a, b",4,1\n"c ""d""",5,0\n')
    wanted = (Prompt("a, b", 4), Prompt('c "d"', 5))
    for name in ("p.parquet", "p.jsonl", "p.csv"):
        asked = read_prompts(tmp_path / name)
        assert asked.prompts == wanted
        assert [int(v) for v in asked.columns["label"]] == [1, 0]


def test_seeds_follow_of_the_row_and_of_one_seed(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("a\n\na\n")
    first = read_prompts(file, seed=1)
    assert len({p.seed for p in first.prompts}) == 2
    assert first == read_prompts(file, seed=1) != read_prompts(file, seed=2)
    more = first.times(3)
    assert more.prompts[0] == first.prompts[0] and len(set(more.prompts)) == 6


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("p.csv", "prompts,label\na,1\n", "no column 'prompt'.*\n.*is it 'prompts'"),
     ("p.csv", "prompt\n", "no prompts"),
     ("p.csv", "prompt,seed\na,x\n", "row 1: 'x'"),
     ("p.csv", "prompt,seed\na,-1\n", "row 1: '-1'"),
     ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', "no column 'prompt'"),
     ("p.jsonl", "{\n", "line 1"),
     ("p.jsonl", "[1]\n", "no JSON object"),
     ("p.jsonl", '{"prompt": " "}\n', "row 1"),
     ("p.jsonl", '{"prompt": 7}\n', "row 1"),
     ("p.parquet", "no parquet", "not a whole Parquet file"),
     ("p.xlsx", "", "come in"),
     ("none.csv", None, "no such file")],
)  # fmt: skip
def test_what_is_no_file_of_prompts(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"(?s){message}"):
        read_prompts(tmp_path / name)


def test_a_parquet_file_without_the_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match="no column 'prompt'"):
        read_prompts(tmp_path / "p.parquet")
