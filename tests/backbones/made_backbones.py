"""Small backbones in folders, made on the spot: real towers with random weights."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from raycl.config.backbones import Backbone

WIDTH = 32
MERGES = ["c a", "ca t</w>", "d o", "do g</w>", "o f</w>", "p h", "t o</w>"]


def config(embed_dim: int = WIDTH, **text: Any) -> dict[str, Any]:
    """An open_clip configuration of two layers per tower."""
    return {
        "model_cfg": {
            "embed_dim": embed_dim,
            "vision_cfg": {
                "image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16
            },
            "text_cfg": {
                "context_length": 77, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2,
                **text,
            },
        },
        "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]},
    }  # fmt: skip


def save_backbone(
    folder: Path, *, seed: int = 0, own_bpe: bool = False, custom: bool = False, **text: Any
) -> Backbone:
    """A local-dir backbone whose weights come from a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    described = config(**text)
    if own_bpe:
        described["model_cfg"]["text_cfg"]["vocab_size"] = 512 + len(MERGES) + 2
        with gzip.open(folder / "bpe.txt.gz", "wt") as file:
            file.write("\n".join(["#version: test", *MERGES]))
    if custom:
        described["model_cfg"]["custom_text"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    _save_weights(folder, seed)
    return Backbone(name=f"local-dir:{folder}", batch=4)


WORDS = ["<unk>", "</s>", "a", "photo", "of", "cat", "dog", "very", "old"]


def save_siglip(folder: Path, *, seed: int = 0) -> Backbone:
    """A backbone of SigLIP's kind: no causal mask, read at the last of its padded places."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    words.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    told |= {"eos_token": "</s>", "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    described = config(
        hf_tokenizer_name=str(folder),
        tokenizer_kwargs={"clean": "canonicalize"},
        no_causal_mask=True,
        proj_bias=True,
        pool_type="last",
        vocab_size=len(WORDS),
        context_length=16,
    )
    described["model_cfg"] |= {"custom_text": True, "init_logit_bias": -10}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    _save_weights(folder, seed)
    return Backbone(name=f"local-dir:{folder}", batch=4)


def _save_weights(folder: Path, seed: int) -> None:
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), str(folder / "open_clip_model.safetensors"))
