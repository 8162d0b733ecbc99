"""BLIPs of random weights: of a true architecture, and saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"),
    *("a", "picture", "of", "the", "on", "cat", "dog", "red", "blue", "small"),
)
LOUD = 8.0


def save_blip(folder: Path, *, full_size: bool = False) -> Path:
    """A folder that `from_pretrained` reads; tiny unless asked for the size of BLIP base."""
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder.mkdir(parents=True)
    words = list(WORDS)
    if full_size:
        words += [f"word{i}" for i in range(30524 - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokeniser = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    side = 384 if full_size else 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BlipForConditionalGeneration(BlipConfig(**_towers(len(words), full_size)))
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.data.mul_(LOUD)  # or all pictures would look alike to it
    model.save_pretrained(folder)
    images = BlipImageProcessor(size={"height": side, "width": side})
    BlipProcessor(images, tokeniser).save_pretrained(folder)
    return folder


def _towers(words: int, full_size: bool) -> dict[str, Any]:
    """The configuration of both towers; BLIP base's own where it is not said otherwise."""
    tokens = {
        "vocab_size": words,
        "bos_token_id": WORDS.index("[DEC]"),
        "sep_token_id": WORDS.index("[SEP]"),
        "eos_token_id": WORDS.index("[SEP]"),
        "pad_token_id": WORDS.index("[PAD]"),
    }
    if full_size:
        return {"text_config": tokens, "vision_config": {"image_size": 384}}
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return {
        "text_config": {
            **tokens,
            **small,
            "encoder_hidden_size": 16,
            "num_attention_heads": 2,
            "projection_dim": 8,
            "max_position_embeddings": 32,
        },
        "vision_config": {**small, "num_attention_heads": 2, "image_size": 32, "patch_size": 16},
        "projection_dim": 8,
        "image_text_hidden_size": 8,
    }
