"""A model's own safety checker: off, or what it flags is told and left out."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from raycl.errors import MethodError
from raycl.synthesis.models import model_files
from tests.synthesis.made_models import digests, made_images, made_prompts, small, small_model


def with_checker(folder: Path, threshold: float) -> str:
    """The small model with a checker that flags whatever is closer to a concept than this."""
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    tower = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 16, "projection_dim": 8,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=tower, projection_dim=8))
        checker.concept_embeds_weights.data.fill_(threshold)
        checker.special_care_embeds_weights.data.fill_(2.0)
        pipeline = StableDiffusionPipeline.from_pretrained(
            small_model(),
            safety_checker=checker,
            feature_extractor=CLIPImageProcessor(
                size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
            ),
        )
        pipeline.save_pretrained(folder)
    return str(folder)


def test_a_checker_is_not_even_loaded_unless_asked_for(tmp_path: Path) -> None:
    strict = with_checker(tmp_path / "model", -2.0)
    off = small(model=strict, chunk=2)
    assert "safety_checker" not in model_files(off).parts
    images = made_images(tmp_path / "store", made_prompts(2), off)
    assert not images.left_out
    plain = made_images(tmp_path / "store", made_prompts(2), small(chunk=2))
    assert digests(plain) == digests(images) and plain.reused == 0


def test_what_is_flagged_is_left_out_and_what_is_not_is_the_same(tmp_path: Path) -> None:
    strict = with_checker(tmp_path / "strict", -2.0)
    with pytest.raises(MethodError, match="no image came right in 2 tries: 2 flagged"):
        made_images(
            tmp_path / "store",
            made_prompts(2),
            small(model=strict, chunk=2, tries=2, safety="detect"),
        )
    mild = small(model=with_checker(tmp_path / "mild", 2.0), chunk=2, safety="detect")
    images = made_images(tmp_path / "store", made_prompts(2), mild)
    assert not images.left_out
    assert digests(images) == digests(
        made_images(tmp_path / "other", made_prompts(2), small(chunk=2))
    )
