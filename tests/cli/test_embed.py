"""`raycl embed`, `--probe` and `--skip-corrupt` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_commands import Shell
from tests.cli.test_commands import shell as shell
from tests.embedding.made_images import damage, save_folder


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return save_folder(tmp_path / "pets")


def test_embed_then_run_on_the_images_or_on_the_file(shell: Shell, pets: Path) -> None:
    answer = shell("embed", f"folder:{pets}", "--out", "pets.parquet", "--json")
    assert answer.code == 0
    assert answer.json["images"] == 18 and answer.json["classes"] == 2
    assert answer.json["splits"] == {"train": 12, "val": 0, "test": 6}
    assert answer.json["computed"] == {"text": 1, "features": 1, "features-chunk": 1}
    assert answer.json["images_per_second"] > 0
    again = shell("embed", f"folder:{pets}", "--json")
    assert again.json["computed"] == {} and again.json["images_per_second"] is None
    options = ("--set", "stream.tasks=2", "--json")
    images = shell("run", "ncm", "--stream", f"folder:{pets}", *options).json
    vectors = shell("run", "ncm", "--stream", "embeddings:pets.parquet", *options).json
    assert "features" not in images["computed"] and images["r_seen"] == vectors["r_seen"]
    assert images["zero_shot"] == vectors["zero_shot"]


def test_embed_for_people_says_what_was_done(shell: Shell, pets: Path) -> None:
    answer = shell("embed", f"folder:{pets}", "--out", "pets.npz")
    assert answer.code == 0
    for part in ("18 (12 train, 6 test)", "tiny-clip", "images/s", "features/folder/", "pets.npz"):
        assert part in answer.out
    assert "found in the store" in shell("embed", f"folder:{pets}").out


def test_corrupt_images_exit_2_or_are_skipped(shell: Shell, pets: Path) -> None:
    bad = damage(pets / "train" / "dog" / "004.jpg")
    for command in (("embed", f"folder:{pets}"), ("run", "ncm", "--stream", f"folder:{pets}")):
        refused = shell(*command)
        assert refused.code == 2 and str(bad) in refused.err and "--skip-corrupt" in refused.err
        assert refused.out == "" and "Traceback" not in refused.err
    embedded = shell("embed", f"folder:{pets}", "--skip-corrupt", "--json")
    assert embedded.json["corrupt"] == [str(bad)] and embedded.json["images"] == 17
    run = shell("run", "ncm", "--stream", f"folder:{pets}", "--skip-corrupt", "--json")
    assert run.json["corrupt"] == [str(bad)]
    assert "features" not in run.json["computed"]
    assert "left out 1 image" in run.err


def test_a_probe_is_shown(shell: Shell, pets: Path) -> None:
    asked = ("run", "finetune", "--stream", "digits", "--set", "stream.tasks=2", "--set")
    asked = (*asked, "method.align.epochs=1", "--probe")
    told = shell(*asked, f"probe:folder:{pets}")
    assert told.code == 0 and "probe pets" in told.out
    values = shell(*asked, f"folder:{pets}", "--json").json
    assert values["reused"] == {"result": 1}
    assert len(values["probe"]) == 2 and values["probe_stream"]["class_names"] == ["cat", "dog"]
    assert {"probe_last", "probe_drop"} <= set(values["metrics"])


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["embed", "embeddings:set.npz"], ["vectors already"]),
        (["embed", "digit"], ["did you mean 'digits'"]),
        (["embed", "folder:nowhere"], ["nowhere"]),
        (["embed", "digits", "--backbone", "given"], ["embeds nothing"]),
        (["embed", "digits", "--backbone", "local-dir:nowhere"], ["nowhere"]),
        (["embed", "digits", "--skip-corrupt"], ["--skip-corrupt is for images in folders"]),
        (["embed", "digits", "--out", "x.csv"], [".parquet or .npz"]),
        (["embed", "digits", "--out", "no/x.npz"], ["no such folder"]),
        (["embed", "digits", "--set", "backbone.batsh=3"], ["did you mean 'batch'"]),
        (["embed", "digits", "--workers", "2"], ["add --pool ray"]),
        (["run", "ncm", "--stream", "digits", "--skip-corrupt"], ["is for images in folders"]),
        (["run", "ncm", "--stream", "digits", "--backbone", "given"], ["holds images"]),
        (["run", "ncm", "--stream", "probe:glyphs"], ["--probe glyphs"]),
        (["run", "ncm", "--stream", "digits", "--probe", "embeddings:set.npz"], ["the probe"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_exits_2_and_says_what_to_do(
    shell: Shell, args: list[str], parts: list[str]
) -> None:
    answer = shell(*args)
    assert answer.code == 2, answer.err
    assert [part for part in parts if part not in answer.err] == [], answer.err
    assert "Traceback" not in answer.err and answer.out == ""


def test_json_is_one_line(shell: Shell, pets: Path) -> None:
    answer = shell("embed", f"folder:{pets}", "--json")
    assert len(answer.out.splitlines()) == 1 and json.loads(answer.out)["out"] is None
