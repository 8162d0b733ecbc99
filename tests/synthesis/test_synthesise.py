"""Synthesis: an image is its prompt, its seed and the spec, and nothing else; faults are told."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raycl.compute.local_pool import LocalPool
from raycl.config.synthesis import Synthesis
from raycl.errors import DataError, MethodError, StoreError
from raycl.observe.events import Event, Progress, Warned
from raycl.store.store import Store
from raycl.synthesis import pipeline as painting
from raycl.synthesis.identity import Seeing
from raycl.synthesis.pipeline import Painted, Painter
from raycl.synthesis.prompts import Prompt
from raycl.synthesis.synthesise import synthesise_features
from tests.synthesis.made_models import (
    digest_of,
    digests,
    made_images,
    made_prompts,
    small,
    small_model,
)

CPU = torch.device("cpu")


def test_images_are_stored_found_and_read_in_order(tmp_path: Path) -> None:
    events: list[Event] = []
    prompts = made_prompts(6)
    first = made_images(tmp_path, prompts, small(), observer=events.append)
    assert (first.computed, first.reused, len(first)) == (6, 0, 6)
    told = [(e.done, e.total) for e in events if isinstance(e, Progress)]
    assert told == [(0, 6), (4, 6), (6, 6)]
    for i in (5, 0, 3):
        assert digest_of(first.pixels(i)) == digests(first)[i]
        with Image.open(io.BytesIO(first.pixels(i))) as opened:
            assert (opened.format, opened.size) == ("WEBP", (32, 32))
    again = made_images(tmp_path, prompts, small())
    assert (again.computed, again.reused) == (0, 6)
    assert again.manifest == first.manifest and again.keys == first.keys
    longer = made_images(tmp_path, made_prompts(9), small())
    assert (longer.computed, longer.reused) == (5, 4), "the whole chunk is found, the rest made"


def test_neighbours_and_places_move_no_bit(tmp_path: Path) -> None:
    prompts = made_prompts(7)
    images = digests(made_images(tmp_path / "a", prompts, small()))
    assert len(set(images)) == 7, "another seed is another image"
    turned = digests(made_images(tmp_path / "b", prompts[::-1], small()))
    assert turned == images[::-1]
    assert digests(made_images(tmp_path / "c", prompts[2:3], small())) == images[2:3]
    twice = made_images(tmp_path / "d", [prompts[1]] * 5, small())
    assert digests(twice) == [images[1]] * 5


def test_what_the_bare_pipeline_paints(tmp_path: Path) -> None:
    """The same pixels as a loop that any user of diffusers would write."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    prompts = made_prompts(4)
    images = made_images(tmp_path, prompts, small(guidance=4.0))
    bare = StableDiffusionPipeline.from_pretrained(small_model())
    bare.scheduler = DPMSolverMultistepScheduler.from_config(bare.scheduler.config)
    bare.set_progress_bar_config(disable=True)
    with painting._quiet():
        found = bare(
            [p.text for p in prompts],
            num_inference_steps=2,
            guidance_scale=4.0,
            generator=[torch.Generator().manual_seed(p.seed) for p in prompts],
            output_type="np",
        ).images
    ours = np.stack([np.asarray(images.image(i)) for i in range(4)])
    assert np.abs(ours / 255 - found).max() <= 0.5 / 255 + 1e-4


@pytest.mark.parametrize(
    "change",
    [{"steps": 3}, {"guidance": 1.0}, {"scheduler": "ddim"}, {"scheduler": "euler"},
     {"negative_prompt": "a photo of a 9."}, {"height": 16, "width": 48}],
)  # fmt: skip
def test_every_option_is_another_image_under_another_key(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    prompts = made_prompts(1)
    base = made_images(tmp_path, prompts, small(chunk=1, guidance=4.0))
    other = made_images(tmp_path, prompts, small(chunk=1, **{"guidance": 4.0, **change}))
    assert set(base.keys).isdisjoint(other.keys) and other.computed == 1
    assert digests(base) != digests(other)


def test_a_copied_model_finds_its_images_and_a_changed_one_does_not(tmp_path: Path) -> None:
    copy = shutil.copytree(small_model(), tmp_path / "copy")
    spec, moved = small(chunk=1), small(chunk=1, model=str(copy))
    made_images(tmp_path / "store", made_prompts(1), spec)
    assert made_images(tmp_path / "store", made_prompts(1), moved).reused == 1
    (copy / "unet" / "README.md").write_text("said, not read")
    assert made_images(tmp_path / "store", made_prompts(1), moved).reused == 1
    index = copy / "vae" / "config.json"
    index.write_text(index.read_text().replace("0.18215", "0.19"))
    assert made_images(tmp_path / "store", made_prompts(1), moved).computed == 1


def with_faults(monkeypatch: pytest.MonkeyPatch, fault: Any) -> list[list[int]]:
    """Lets `fault(seed)` say what is wrong with an image; the seeds of each pass."""
    passes: list[list[int]] = []
    paint = Painter.paint

    def painted(self: Painter, texts: Any, seeds: Any) -> list[Painted]:
        passes.append(list(seeds))
        found = paint(self, texts, seeds)
        return [Painted(None, fault(s)) if fault(s) else one
                for s, one in zip(seeds, found, strict=True)]  # fmt: skip

    monkeypatch.setattr(Painter, "paint", painted)
    return passes


def test_a_bad_image_is_painted_again_from_another_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = with_faults(monkeypatch, lambda seed: "black" if seed == 1002 else "")
    events: list[Event] = []
    images = made_images(tmp_path, made_prompts(4), small(), observer=events.append)
    assert [len(p) for p in passes] == [4, 1]
    assert [note["tries"] for note in images.notes] == [1, 1, 2, 1] and not images.left_out
    assert "another seed" in next(e.message for e in events if isinstance(e, Warned))


def test_an_image_that_never_comes_right_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = made_prompts(4)
    bad = with_faults(monkeypatch, lambda seed: "" if seed in range(1000, 1003) else "nan")
    events: list[Event] = []
    images = made_images(tmp_path, good, small(tries=2), observer=events.append)
    assert images.left_out == (3,) and [len(p) for p in bad] == [4, 1]
    assert images.manifest[3]["fault"] == "nan" and images.manifest[3]["tries"] == 2
    assert "1 images are left out (1 nan)" in next(
        e.message for e in events if isinstance(e, Warned)
    )
    with pytest.raises(DataError, match="left out"):
        images.pixels(3)
    with pytest.raises(MethodError, match="no image came right"):
        made_images(tmp_path, [Prompt("a", 5)], small(tries=2))


def test_black_and_nan_are_seen() -> None:
    image = np.zeros((4, 4, 3), np.float32)
    assert painting._judged(image, False).fault == "black"
    image[0, 0, 0] = np.nan
    assert painting._judged(image, False).fault == "nan"
    image[0, 0, 0] = 0.5
    assert painting._judged(image, False).pixels is not None
    assert painting._judged(image, True).fault == "flagged"


def test_a_long_prompt_is_cut_and_told(tmp_path: Path) -> None:
    events: list[Event] = []
    text = "a photo of a " + "seven " * 90
    images = made_images(
        tmp_path, [Prompt(text, 1), *made_prompts(1)], small(), observer=events.append
    )
    assert images.notes[0]["tokens_cut"] == 90 + 4 + 2 - 77 and images.notes[1]["tokens_cut"] == 0
    assert "longer than the model reads" in next(e.message for e in events if isinstance(e, Warned))


def test_the_smallest_memory_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    with pytest.raises(MethodError, match=r"(?s)memory is too small.*lower chunk"):
        Painter(small(), torch.device("cuda"))


def test_a_pass_that_does_not_fit_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    painter = Painter(small(), CPU)

    def full(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(painter, "pipeline", full)
    monkeypatch.setattr(painter, "_told", lambda texts: {})
    with pytest.raises(MethodError, match="a pass does not fit"):
        painter.paint(["a"], [1])


def test_images_that_vanish_are_told(tmp_path: Path) -> None:
    images = made_images(tmp_path, made_prompts(2), small())
    images.store.discard(images.chunks[0].artefact)
    with pytest.raises(StoreError, match="no longer in the store"):
        images.pixels(0)


def test_features_are_what_the_images_would_give(tmp_path: Path) -> None:
    from raycl.backbones.encoder import load_encoder
    from raycl.config.backbones import Backbone

    prompts, backbone = made_prompts(6), Backbone(name="tiny-clip", batch=4)
    given: dict[str, Any] = {"store": Store.open(str(tmp_path)), "pool": LocalPool()}
    found = synthesise_features(prompts, small(), Seeing(backbone, side=16), **given)
    assert (found.x.shape, found.computed, found.rows.tolist()) == ((6, 128), 6, [*range(6)])
    images = made_images(tmp_path, prompts, small())
    assert set(images.keys).isdisjoint(found.keys)
    encoder = load_encoder(backbone, CPU)
    small_ones = [images.image(i).resize((16, 16), Image.Resampling.BICUBIC) for i in range(6)]
    wanted = encoder.encode_images(torch.stack([encoder.preprocess(i) for i in small_ones]))
    assert np.allclose(found.x, wanted.numpy(), atol=1e-5)
    again = synthesise_features(prompts, small(), Seeing(backbone, side=16), **given)
    assert again.reused == 6 and np.array_equal(again.x, found.x)
    assert synthesise_features(prompts[:4], small(), Seeing(backbone), **given).computed == 4


def test_prompts_are_encoded_once_and_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    painter = Painter(small(), CPU)
    asked: list[str] = []
    encode = painter.pipeline.encode_prompt

    def noted(text: str | None, *args: Any, **options: Any) -> Any:
        if text is not None:  # the pipeline's own call, with what we encoded
            asked.append(text)
        return encode(text, *args, **options)

    monkeypatch.setattr(painter.pipeline, "encode_prompt", noted)
    painter.paint(["a", "b", "a"], [1, 2, 3])
    painter.paint(["b"], [4])
    assert asked == ["a", "b"]
    monkeypatch.setattr(painting, "REMEMBERED_BYTES", 1)
    painter.paint(["c"], [5])
    assert list(painter._texts) == ["c"]


@pytest.mark.parametrize("name", ["euler_a", "lcm", "dpmpp_sde", "Euler-Ancestral", "ddpm"])
def test_solvers_that_add_noise_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="draws noise"):
        Synthesis(scheduler=name)  # type: ignore[arg-type]
