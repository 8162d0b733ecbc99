"""Pre-training: the vocabulary, the loss, and that a stopped run ends with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from raycl.backbones.tiny import CONFIG_FILE, VOCABULARY_FILE, WEIGHTS, WEIGHTS_FILE
from raycl.backbones.tiny.pretraining import (
    CHECKPOINT_FILE,
    Plan,
    Told,
    contrast,
    pretrain,
    tokeniser,
)
from raycl.backbones.tiny.vocabulary import learn_merges, vocabulary_size, write_merges
from raycl.errors import ConfigError

SMALL = Plan(
    batches=6, batch=16, warm_up=2, vision_width=32, vision_layers=1, text_width=32, text_layers=1
)
CPU = torch.device("cpu")


def test_merges_join_what_is_most_frequent(tmp_path: Path) -> None:
    merges = learn_merges(["seven seven", "seventy seven", "a photo"], merges=4)
    assert merges[0] == ("e", "v")  # three letters are as frequent; the alphabet decides
    write_merges(tmp_path / VOCABULARY_FILE, merges)
    first = (tmp_path / VOCABULARY_FILE).read_bytes()
    write_merges(
        tmp_path / VOCABULARY_FILE, learn_merges(["seven seven", "seventy seven", "a photo"], 4)
    )
    assert (tmp_path / VOCABULARY_FILE).read_bytes() == first
    read = tokeniser(tmp_path)
    assert read.vocab_size == vocabulary_size(4)
    assert read.eot_token_id == vocabulary_size(4) - 1


@pytest.mark.parametrize("text", ["a photo of a seven.", "Straße", "日本 ~!", "naïve 7"])
def test_the_shipped_vocabulary_writes_any_text(text: str) -> None:
    read = tokeniser(WEIGHTS)
    ids = read.encode(text)
    assert max(ids) < read.sot_token_id < read.eot_token_id == read.vocab_size - 1 < 2000
    assert read.decode(ids).strip().replace(" ", "") == text.lower().replace(" ", "")


def test_shipped_names_are_short() -> None:
    read = tokeniser(WEIGHTS)
    assert len(read.encode("a photo of a seven.")) == 6
    assert len(read.encode("star in a circle")) == 4


def test_the_loss_is_blind_to_other_true_pairs() -> None:
    # Pictures 0 and 1 both show what caption 0 says; picture 2 does not.
    logits = torch.tensor([[5.0, 1.0], [5.0, 1.0], [1.0, 5.0]])
    own = torch.tensor([0, 0, 1])
    true = torch.tensor([[True, False], [True, False], [False, True]])
    expected = torch.log(1 + torch.exp(torch.tensor(-4.0)))
    third = torch.log(1 + 2 * torch.exp(torch.tensor(-4.0)))
    assert contrast(logits, own, true) == pytest.approx(float((2 * expected + third) / 3))


def test_a_stopped_run_continues_to_the_same_bytes(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    told: list[Told] = []
    assert pretrain(SMALL, whole, device=CPU, drawers=0, tell=told.append)
    assert [t.batch for t in told] == [1, 2, 3, 4, 5, 6]

    def stop_at(batch: int) -> bool:
        seen: list[Told] = []
        return pretrain(
            SMALL, parts, device=CPU, drawers=0, tell=seen.append,
            stopping=lambda: seen[-1].batch >= batch,
        )  # fmt: skip

    assert not stop_at(2)
    assert not (parts / WEIGHTS_FILE).exists()
    assert not stop_at(3)
    assert stop_at(99)
    assert not (parts / CHECKPOINT_FILE).exists()
    for name in (CONFIG_FILE, VOCABULARY_FILE, WEIGHTS_FILE):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_another_plan_does_not_continue_this_one(tmp_path: Path) -> None:
    assert not pretrain(SMALL, tmp_path, device=CPU, drawers=0, stopping=lambda: True)
    other = Plan(**{**SMALL.__dict__, "lr": 1.0})
    with pytest.raises(ConfigError, match="another pre-training, half done"):
        pretrain(other, tmp_path, device=CPU, drawers=0)


def test_drawing_elsewhere_draws_the_same(tmp_path: Path) -> None:
    plan = Plan(**{**SMALL.__dict__, "batches": 2})
    here, there = tmp_path / "here", tmp_path / "there"
    pretrain(plan, here, device=CPU, drawers=0)
    pretrain(plan, there, device=CPU, drawers=1)
    assert (here / WEIGHTS_FILE).read_bytes() == (there / WEIGHTS_FILE).read_bytes()


def test_the_shipped_weights_are_small_and_say_how_they_were_made() -> None:
    assert (WEIGHTS / WEIGHTS_FILE).stat().st_size <= 8 * 2**20
    config = json.loads((WEIGHTS / CONFIG_FILE).read_text())
    assert config["pretraining"]["batches"] == Plan().batches
