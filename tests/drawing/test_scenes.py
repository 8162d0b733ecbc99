"""Pictures: the same generator draws the same, and what is drawn is what was asked for."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from raycl.drawing.fonts import HELD_OUT_FONTS, PRETRAINING_FONTS, font_file
from raycl.drawing.masks import SIDE, glyph
from raycl.drawing.patterns import SHAPES, STREAM_SHAPES, TEXTURES, shape
from raycl.drawing.scenes import (
    COLOURS,
    SIZE,
    colour,
    draw_colour,
    draw_letter,
    draw_nested,
    draw_texture,
    nested,
    printed,
    scanned,
    two_colours,
)
from raycl.errors import DataError

EVERY_PICTURE = {
    **{f"letter {f}": (draw_letter, "A", f) for f in HELD_OUT_FONTS},
    **{f"{i} in {o}": (draw_nested, o, i) for o, i in STREAM_SHAPES},
    **{name: (draw_texture, name) for name in TEXTURES},
    **{name: (draw_colour, name) for name in COLOURS},
}


@pytest.mark.parametrize("name", EVERY_PICTURE)
def test_a_picture_shows_something_and_is_drawn_the_same_twice(name: str) -> None:
    draw, *what = EVERY_PICTURE[name]
    one, two, other = (draw(np.random.default_rng(seed), *what) for seed in (0, 0, 1))
    assert one.shape == (SIZE, SIZE, 3)
    assert one.dtype == np.uint8
    assert one.std() > 5
    assert (one == two).all()
    assert (one != other).any()


def test_another_process_draws_the_same() -> None:
    code = (
        "import numpy, hashlib; from raycl.drawing.scenes import draw_letter;"
        "p = draw_letter(numpy.random.default_rng(4), 'Q', 'DejaVuSerif.ttf');"
        "print(hashlib.sha256(p.tobytes()).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout != b""


def test_every_font_has_every_character() -> None:
    for font in PRETRAINING_FONTS + HELD_OUT_FONTS:
        inks = {c: glyph(c, font).tobytes() for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"}
        assert len(set(inks.values())) == 36, font


def test_a_missing_font_is_named() -> None:
    with pytest.raises(DataError, match="lacks a font"):
        font_file("Nowhere.ttf")


def test_a_scan_is_white_on_black_in_seventeen_levels() -> None:
    rng = np.random.default_rng(0)
    picture = scanned(printed("5", PRETRAINING_FONTS[0], rng), rng)
    assert (picture[..., 0] == picture[..., 2]).all()
    assert picture.min() < 30 < 150 < picture.max()


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_differ_from_one_another(name: str) -> None:
    mine = np.asarray(shape(name, 0.8)) > 127
    for other in SHAPES:
        if other != name:
            theirs = np.asarray(shape(other, 0.8)) > 127
            assert (mine != theirs).mean() > 0.04, other


def test_a_nested_shape_has_a_hole() -> None:
    for outer, inner in STREAM_SHAPES:
        hole = np.asarray(nested(outer, inner, np.random.default_rng(0)))
        middle = hole[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
        assert (middle == 0).sum() > 30, (outer, inner)
        assert hole.max() == 255


def test_shades_keep_to_their_name() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        red, green, blue = colour("red", rng)
        assert red > 2 * max(green, blue)
        assert max(colour("black", rng)) < 40
        assert min(colour("white", rng)) > 220


def test_ink_and_ground_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    pairs = {two_colours(rng) for _ in range(500)}
    assert all(ink != ground for ink, ground in pairs)
    assert ("red", "orange") not in pairs
    assert len(pairs) > 60


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="no such shape"):
        shape("hexagon", 0.5)
