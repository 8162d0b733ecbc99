"""`raycl data`: what it says, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raycl.cli.main import code_of
from raycl.config.sources.catalogue import source_names
from tests.streams.made_sources import make_source


def test_the_list_says_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_source(tmp_path, "eurosat")
    make_source(tmp_path, "dtd").folder.joinpath("split_zhou_DescribableTextures.json").unlink()
    assert code_of(["data", "list", "--root", str(tmp_path), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list(source_names())
    here = {row["name"]: row["here"] for row in rows}
    assert here["eurosat"] == "yes (coop)" and here["cars"] == "no"
    assert here["dtd"] == "lacks split_zhou_DescribableTextures.json"


def test_the_list_needs_no_root(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAYCL_DATA", raising=False)
    assert code_of(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert "not stated" in out and "xtail: aircraft, caltech101" in out
    assert "RAYCL_DATA is not set" in out


def test_prepare_says_licence_and_size_and_fetches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(["data", "prepare", "pets", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "CC BY-SA 4.0" in out and "755 MiB to fetch" in out
    assert "split_zhou_OxfordPets.json: https://drive.google.com" in out
    assert f"place it in {tmp_path / 'oxford_pets'}/" in out and "nothing was fetched" in out
    assert list(tmp_path.iterdir()) == []
    assert out.index("CC BY-SA") < out.index("images.tar.gz")


def test_prepare_verifies_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_source(tmp_path, "eurosat")
    assert code_of(["data", "prepare", "eurosat", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "MIT" in out and "ok   eurosat: 4 classes, 40 images (20 train" in out


def test_verify_looks_at_all_that_is_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_source(tmp_path, "eurosat")
    bad = make_source(tmp_path, "dtd").folder / "images" / "Kind_0" / "train0.jpg"
    assert code_of(["data", "verify", "--root", str(tmp_path), "eurosat"]) == 0
    bad.write_bytes(b"no picture")
    assert code_of(["data", "verify", "--root", str(tmp_path)]) == 0
    assert code_of(["data", "verify", "--root", str(tmp_path), "--decode"]) == 1
    out = capsys.readouterr().out
    assert "ok   eurosat: 4 classes, 40 images" in out and "FAIL dtd" in out
    assert f"corrupt: {bad}: its bytes are no image" in out
    assert code_of(["data", "verify", "--root", str(tmp_path), "--decode", "--json", "dtd"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["faults"] == {"corrupt": 1} and told["ok"] is False


def test_verify_tells_of_what_is_there_in_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_source(tmp_path, "eurosat")
    split = make_source(tmp_path, "dtd").folder / "split_zhou_DescribableTextures.json"
    split.unlink()
    assert code_of(["data", "verify", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"FAIL dtd: lacks {split.name} in {split.parent}" in out and "ok   eurosat" in out


def test_what_is_not_there_or_has_no_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(["data", "verify", "cars", "--root", str(tmp_path)]) == 2
    assert "Stanford Cars (Cars-196) is not on this machine" in capsys.readouterr().err
    assert code_of(["data", "verify", "crs", "--root", str(tmp_path)]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert code_of(["data", "verify", "--root", str(tmp_path)]) == 2
    assert "no data set is here" in capsys.readouterr().err
    assert code_of(["data", "list", "--root", str(tmp_path / "nowhere")]) == 2


def test_a_stream_of_several_is_prepared_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(["data", "prepare", "c2r", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "CIFAR-100" in out and "ImageNet-R" in out
