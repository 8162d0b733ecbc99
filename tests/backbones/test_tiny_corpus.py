"""What tiny-CLIP learns from: true captions, nothing of the streams, the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from raycl.backbones.tiny import corpus
from raycl.backbones.tiny.corpus import (
    ALONE,
    DIGIT,
    NESTED,
    NESTED_PAIRS,
    NOTHING,
    SHAPE,
    Slot,
    agreement,
    describe,
    draw_batch,
    draw_scene,
)
from raycl.drawing.fonts import HELD_OUT_FONTS, PRETRAINING_FONTS
from raycl.drawing.patterns import OUTER_SHAPES, SHAPES, STREAM_SHAPES


def truth(**values: int) -> np.ndarray:
    out = np.full(len(Slot), NOTHING, np.int16)
    for name, value in values.items():
        out[Slot[name]] = value
    return out


def test_every_caption_is_true_of_its_own_picture() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = draw_scene(rng)
        claim = describe(scene.truth, rng).claim
        assert agreement(scene.truth[None], claim[None]).all()


def test_a_caption_is_judged_by_what_it_says_and_no_more() -> None:
    seven = truth(FAMILY=DIGIT, SUBJECT=7, INK=0)
    red_seven = truth(FAMILY=DIGIT, SUBJECT=7, INK=0, GROUND=3)
    blue_seven = truth(FAMILY=DIGIT, SUBJECT=7, INK=5, GROUND=3)
    circle = truth(FAMILY=SHAPE, SUBJECT=0, INNER=ALONE)
    star_in_circle = truth(FAMILY=NESTED, SUBJECT=0, INNER=SHAPES.index("star"))
    said = agreement(
        np.stack([red_seven, blue_seven, circle, star_in_circle]),
        np.stack([seven, truth(FAMILY=DIGIT, SUBJECT=7), circle, star_in_circle]),
    )
    assert said.tolist() == [
        [True, True, False, False],
        [False, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]


def test_nothing_that_a_stream_draws_is_drawn_here() -> None:
    assert not set(PRETRAINING_FONTS) & set(HELD_OUT_FONTS)
    assert not set(NESTED_PAIRS) & set(STREAM_SHAPES)
    # What is held out is a meeting of shapes that are known apart.
    assert {shape for pair in STREAM_SHAPES for shape in pair} <= set(SHAPES)
    assert {outer for outer, _ in STREAM_SHAPES} <= set(OUTER_SHAPES)
    for outer, inner in STREAM_SHAPES:
        assert any(o == outer for o, _ in NESTED_PAIRS)
        assert any(i == inner for _, i in NESTED_PAIRS)


def test_fonts_and_pairs_reach_a_picture_through_those_lists_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fonts, pairs = set(), set()
    printed, nested = corpus.printed, corpus.nested
    monkeypatch.setattr(
        corpus, "printed", lambda c, font, rng: (fonts.add(font), printed(c, font, rng))[1]
    )
    monkeypatch.setattr(
        corpus, "nested", lambda o, i, rng: (pairs.add((o, i)), nested(o, i, rng))[1]
    )
    rng = np.random.default_rng(1)
    for _ in range(1500):
        draw_scene(rng)
    assert fonts == set(PRETRAINING_FONTS)
    assert len(pairs) > 30
    assert not pairs & set(STREAM_SHAPES)


def test_a_batch_keeps_each_caption_once_and_knows_whose_it_is() -> None:
    batch = draw_batch(np.random.default_rng(3), 200)
    assert len(set(batch.texts)) == len(batch.texts) < 200
    assert batch.pictures.shape == (200, 32, 32, 3)
    assert batch.agreement.shape == (200, len(batch.texts))
    assert batch.agreement[np.arange(200), batch.caption].all()
    assert 0.0 < batch.agreement.mean() < 0.2


def test_the_same_generator_draws_the_same_batch() -> None:
    one, two = (draw_batch(np.random.default_rng(5), 20) for _ in range(2))
    other = draw_batch(np.random.default_rng(6), 20)
    assert (one.pictures == two.pictures).all()
    assert one.texts == two.texts
    assert (one.pictures != other.pictures).any()
