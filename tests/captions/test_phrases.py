"""The attribute captioner is right about drawings it never saw, far more often than by chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from raycl.backbones.encoder import Encoder, load_encoder
from raycl.captions.attributes import Attributes
from raycl.captions.phrases import (
    GROUND,
    INK,
    SIZE,
    SLANT,
    STROKE,
    DrawnSlot,
    TextSlot,
    caption_of,
    exemplar,
)
from raycl.config.backbones import Backbone
from raycl.config.captions import SLOTS, AttributesCaptioner, Captioning
from raycl.config.loading import check
from raycl.config.seeds import rng
from raycl.drawing.fonts import HELD_OUT_FONTS
from raycl.drawing.scenes import COLOURS, colour, painted, printed, two_colours
from raycl.errors import ConfigError

EACH = 40


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(Backbone(name="tiny-clip"), torch.device("cpu"))


@pytest.fixture(scope="module")
def attributes(encoder: Encoder) -> Attributes:
    return Attributes(AttributesCaptioner(), encoder)


@pytest.mark.parametrize(
    ("slot", "share"), [(STROKE, 0.8), (SLANT, 0.62), (SIZE, 0.75)], ids=lambda value: str(value)
)
def test_drawn_phrases_are_found_on_held_out_drawings(
    attributes: Attributes, slot: DrawnSlot, share: float
) -> None:
    """Other fonts and other random numbers than the exemplars'; chance is 1 in 2, or 1 in 3."""
    right = []
    for place, phrase in enumerate(slot.phrases):
        drawn = [
            Image.fromarray(exemplar(slot.name, phrase, n, fonts=HELD_OUT_FONTS, seed=1))
            for n in range(EACH)
        ]
        p = attributes.probabilities(slot, "7", attributes.vectors(drawn))
        assert torch.allclose(p.sum(dim=1), torch.ones(EACH))
        right.append(float((p.argmax(dim=1) == place).float().mean()))
    assert np.mean(right) >= share, right
    assert min(right) > 1 / len(slot.phrases), "each of its phrases, not the commonest alone"


def test_colours_are_found_by_text_on_held_out_drawings(attributes: Attributes) -> None:
    r = rng(0, "test colours")
    images, inks, grounds = [], [], []
    for n in range(2 * EACH):
        ink, ground = two_colours(r)
        mask = printed("A", HELD_OUT_FONTS[n % len(HELD_OUT_FONTS)], r)
        images.append(Image.fromarray(painted(mask, colour(ink, r), colour(ground, r), r)))
        inks.append(COLOURS.index(ink))
        grounds.append(COLOURS.index(ground))
    x = attributes.vectors(images)

    def right(slot: TextSlot, truth: list[int]) -> float:
        found = attributes.probabilities(slot, "letter A", x).argmax(dim=1)
        return float((found == torch.tensor(truth)).float().mean())

    assert right(INK, inks) > 0.7 and right(GROUND, grounds) > 0.7, "chance is 1 in 12"


def test_what_is_not_sure_is_left_unsaid(encoder: Encoder) -> None:
    drawn = [
        Image.fromarray(exemplar("slant", "leaning right", n, fonts=HELD_OUT_FONTS, seed=2))
        for n in range(8)
    ]
    sure = AttributesCaptioner(certainty=0.0, slots=("slant", "ink"), exemplars=16)
    texts = [said.text for said in Attributes(sure, encoder).say("7", drawn)]
    assert all(len(text) > len("a 7") for text in texts) and len(set(texts)) > 1
    strict = sure.model_copy(update={"certainty": 0.95})
    shorter = [said.text for said in Attributes(strict, encoder).say("7", drawn)]
    assert all(len(b) <= len(a) for a, b in zip(texts, shorter, strict=True))
    assert shorter != texts, "these are poor exemplars to be so sure of"
    scores = [said.score for said in Attributes(sure, encoder).say("7", drawn)]
    assert all(score is not None and -1 <= score <= 1 for score in scores)


def test_a_picture_is_captioned_the_same_alone_and_in_company(attributes: Attributes) -> None:
    drawn = [
        Image.fromarray(exemplar("size", "small", n, fonts=HELD_OUT_FONTS, seed=3))
        for n in range(5)
    ]
    together = attributes.say("7", drawn)
    assert [attributes.say("7", [image])[0] for image in drawn] == together


def test_a_caption_reads_well_and_does_not_contradict_itself() -> None:
    every = {"ink": "white", "ground": "black", "stroke": "thin", "slant": "leaning right"}
    assert caption_of("7", every) == "a thin white 7 on black, leaning right"
    assert caption_of("7", {"slant": "upright", "size": "large"}) == "a large 7"
    assert caption_of("red patch", {"ink": "grey", "ground": "blue"}) == "a red patch on blue"
    assert caption_of("7", {"ink": "grey", "ground": "grey"}) == "a grey 7"
    assert caption_of("cat", {"place": "in a field"}) == "a cat in a field"
    assert caption_of("cat", {}) == "a cat"


def test_phrases_of_ones_own_are_found_by_text(encoder: Encoder) -> None:
    own = AttributesCaptioner(slots=(), phrases={"on": ("on red", "on blue")}, certainty=0.5)
    r = rng(0, "test own phrases")
    mask = printed("B", HELD_OUT_FONTS[0], r)
    on_blue = Image.fromarray(painted(mask, colour("white", r), colour("blue", r), r))
    on_red = Image.fromarray(painted(mask, colour("white", r), colour("red", r), r))
    said = Attributes(own, encoder).say("letter B", [on_blue, on_red])
    assert [one.text for one in said] == ["a letter B on blue", "a letter B on red"]


@pytest.mark.parametrize(
    ("captioner", "message"),
    [
        ({"kind": "attributes", "slots": ["inc"]}, "inc"),
        ({"kind": "attributes", "slots": ["ink", "ink"]}, "twice"),
        ({"kind": "attributes", "phrases": {"ink": ["a", "b"]}}, "has a slot ink already"),
        ({"kind": "attributes", "phrases": {"place": ["here"]}}, "two phrases"),
        ({"kind": "template", "template": "no place"}, "once"),
        ({"kind": "blip", "shortest": 9, "longest": 5}, "shorter than the shortest"),
        ({"kind": "blib"}, "blib"),
    ],
)
def test_wrong_options_are_told(captioner: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(Captioning, {"captioner": captioner})


def test_the_bank_has_every_slot() -> None:
    from raycl.captions.phrases import BANK

    assert tuple(BANK) == SLOTS and all(slot.name == name for name, slot in BANK.items())
