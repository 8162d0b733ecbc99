"""tiny-SD: its parts, its pre-training, and what the shipped one can draw."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from raycl.backbones.tiny import WEIGHTS
from raycl.backbones.tiny.corpus import sample_captions
from raycl.backbones.tiny.pretraining import as_pixels
from raycl.backbones.tiny.pretraining import tokeniser as clip_tokeniser
from raycl.config.seeds import rng
from raycl.config.synthesis import Synthesis
from raycl.errors import ConfigError
from raycl.synthesis.models import model_files
from raycl.synthesis.pipeline import Painter
from raycl.synthesis.tiny import INDEX_FILE, PIPELINE
from raycl.synthesis.tiny.architecture import encoded, text_tower, tokeniser
from raycl.synthesis.tiny.pictures import CHUNK, drawn
from raycl.synthesis.tiny.pretraining import WORK, Plan, Told, pretrain

SMALL = Plan(
    pictures=40, autoencoder_batches=4, autoencoder_batch=4, batches=4, batch=4, wide_batches=2,
    warm_up=2,
)  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_the_text_tower_and_the_tokeniser_are_tiny_clips() -> None:
    texts = [*sample_captions(rng(0, "captions"), 50), "Thick, slanted don't! digit 7; ÄÖ"]
    ours, theirs = tokeniser(), clip_tokeniser(WEIGHTS)
    ids = ours(texts, padding="max_length", max_length=77).input_ids
    ends = [row.index(max(row)) + 1 for row in theirs(texts).tolist()]
    for own, reference, end in zip(ids, theirs(texts).tolist(), ends, strict=True):
        assert own[:end] == reference[:end]
    model = open_clip.create_model(f"local-dir:{WEIGHTS}").eval()
    with torch.no_grad():
        x = model.token_embedding(theirs(texts)) + model.positional_embedding
        wanted = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
    found = encoded(text_tower(), ours, texts)
    for own, reference, end in zip(found, wanted, ends, strict=True):
        assert torch.allclose(own[:end], reference[:end], atol=1e-5)


def test_a_stopped_pretraining_continues_to_the_same_bytes(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    told: list[Told] = []
    assert pretrain(SMALL, whole, drawers=0, tell=told.append)
    assert [(t.stage, t.done) for t in told if t.stage == "unet"] == [
        ("unet", i) for i in (1, 2, 3, 4)
    ]

    def stop_at(stage: str, done: int) -> bool:
        seen: list[Told] = []
        return pretrain(
            SMALL, parts, drawers=0, tell=seen.append,
            stopping=lambda: (seen[-1].stage, seen[-1].done) == (stage, done),
        )  # fmt: skip

    assert not stop_at("draw", 40)
    assert not stop_at("autoencoder", 2)
    assert not stop_at("unet", 3)
    assert not (parts / INDEX_FILE).exists()
    with pytest.raises(ConfigError, match="has gone through 3"):
        pretrain(Plan(**{**SMALL.__dict__, "batches": 2}), parts, drawers=0)
    with pytest.raises(ConfigError, match="another pre-training"):
        pretrain(Plan(**{**SMALL.__dict__, "lr": 0.5}), parts, drawers=0)
    assert stop_at("", 0)
    assert contents(whole) == contents(parts) and not (parts / WORK).exists()
    painter = Painter(Synthesis(model=str(parts), steps=2, chunk=2), torch.device("cpu"))
    assert painter.paint(["a seven"], [1])[0].pixels is not None


def test_pictures_are_the_same_whoever_draws_them() -> None:
    here = drawn(0, CHUNK + 3, 0, lambda done: None, lambda: False)
    there = drawn(0, CHUNK + 3, 1, lambda done: None, lambda: False)
    assert here is not None and there is not None and len(here.captions) == CHUNK + 3
    assert here.captions == there.captions and torch.equal(here.pixels, there.pixels)
    assert here.captions[:3] != here.captions[CHUNK:]


def test_the_shipped_model_is_small_and_says_how_it_was_made() -> None:
    files = model_files(Synthesis())
    assert files.weight_bytes <= 12 * 2**20
    plan = json.loads((PIPELINE / "pretraining.json").read_text())
    assert plan["batches"] == Plan().batches and json.loads(Plan().text()).items() <= plan.items()


def test_tiny_clip_knows_what_the_shipped_model_draws() -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    texts = [f"a photo of a {name}." for name in names]
    spec = Synthesis(chunk=40)
    painted = Painter(spec, torch.device("cpu")).paint(texts * 4, list(range(40)))
    pictures = np.stack([one.pixels for one in painted if one.pixels is not None])
    model = open_clip.create_model(f"local-dir:{WEIGHTS}").eval()
    with torch.no_grad():
        images = normalize(model.encode_image(as_pixels(pictures)))
        told = (images @ normalize(model.encode_text(clip_tokeniser(WEIGHTS)(texts))).T).argmax(1)
    right = (told.numpy() == np.tile(np.arange(10), 4)).mean()
    assert right >= 0.75, right
