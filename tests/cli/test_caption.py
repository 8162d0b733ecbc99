"""`raycl caption` at the command line: it stands alone, resumes, and says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.test_commands import Shell
from tests.cli.test_commands import shell as shell
from tests.embedding.made_images import damage, save_folder

QUICK = ("--set", "captions.captioner.slots=[ink, ground]")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return save_folder(tmp_path / "pets")


def test_captions_of_a_folder_are_written_and_found_again(shell: Shell, pets: Path) -> None:
    command = ("caption", "--images", str(pets), "--per-class", "4", "--captioner", "attributes")
    made = shell(*command, *QUICK, "--out", "pets.parquet", "--json")
    assert made.code == 0, made.err
    assert made.json["images"] == 8 and made.json["computed"] == {"captions": 2}
    assert made.json["image_bytes"] == 8 * 40 * 36 * 3
    table = pq.ParquetFile("pets.parquet").read(use_threads=False).to_pylist()
    assert len(table) == made.json["captions"]
    assert {row["class"] for row in table} == {"cat", "dog"}
    assert {row["task"] for row in table} == {0, 1}, "as a run would meet the classes"
    again = shell(*command, *QUICK)
    assert again.code == 0 and "2 found in the store" in again.out and "cat" in again.out


def test_captions_that_cannot_be_made_exit_2(shell: Shell, pets: Path) -> None:
    bad = damage(pets / "train" / "dog" / "004.jpg")
    command = ("caption", "--images", str(pets), *QUICK)
    refused = shell(*command)
    assert refused.code == 2 and str(bad) in refused.err and "--skip-corrupt" in refused.err
    assert shell(*command, "--skip-corrupt", "--json").json["corrupt"] == [str(bad)]
    for wrong, words in (
        (("caption",), "--images PATH"),
        (("caption", "--stream", "digits", "--images", str(pets)), "one of them"),
        ((*command, "--captioner", "blib"), "blip"),
        ((*command, "--out", "captions.csv"), "Parquet"),
        ((*command, "--out", "no/captions.parquet"), "make its folder"),
        ((*command, "--split", "val", "--skip-corrupt"), "no image in its split"),
        (("caption", "--stream", "embeddings:x.npz"), "captions are of images"),
        (("caption", "--images", str(pets / "nowhere")), "no such folder"),
    ):
        answer = shell(*wrong)
        assert answer.code == 2 and words in answer.err, (wrong, answer.err)
        assert "Traceback" not in answer.err
