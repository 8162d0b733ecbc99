"""Finished pictures: a mask, an ink and a ground, at the size a tiny tower looks at.

Every function takes the random generator it draws from and nothing else that varies: the
same generator gives the same bytes.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from raycl.drawing.masks import SIDE, Pixels, bent, glyph, placed, thickened, turned
from raycl.drawing.patterns import shape, texture

SIZE = 32
"""Pixels across a finished picture."""

_HUES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-0.025, 0.02), (0.75, 1.0), (0.7, 1.0)),
    "orange": ((0.06, 0.095), (0.85, 1.0), (0.88, 1.0)),
    "yellow": ((0.14, 0.175), (0.75, 1.0), (0.85, 1.0)),
    "green": ((0.28, 0.39), (0.6, 1.0), (0.45, 0.85)),
    "cyan": ((0.47, 0.52), (0.6, 1.0), (0.8, 1.0)),
    "blue": ((0.59, 0.67), (0.7, 1.0), (0.6, 1.0)),
    "purple": ((0.74, 0.8), (0.55, 0.9), (0.4, 0.8)),
    "pink": ((0.88, 0.94), (0.3, 0.6), (0.9, 1.0)),
    "brown": ((0.04, 0.08), (0.55, 0.85), (0.3, 0.5)),
    "white": ((0.0, 1.0), (0.0, 0.04), (0.93, 1.0)),
    "grey": ((0.0, 1.0), (0.0, 0.06), (0.4, 0.62)),
    "black": ((0.0, 1.0), (0.0, 0.1), (0.0, 0.12)),
}
COLOURS = tuple(_HUES)

_CLASHES = (
    frozenset({"red", "orange"}), frozenset({"red", "brown"}), frozenset({"orange", "brown"}),
    frozenset({"orange", "yellow"}), frozenset({"yellow", "white"}), frozenset({"cyan", "white"}),
    frozenset({"blue", "purple"}), frozenset({"brown", "black"}), frozenset({"pink", "white"}),
    frozenset({"purple", "black"}), frozenset({"cyan", "blue"}), frozenset({"grey", "purple"}),
    frozenset({"grey", "brown"}), frozenset({"blue", "black"}), frozenset({"grey", "green"}),
)  # fmt: skip
"""Pairs that are hard to tell apart as ink on ground."""


def colour(name: str, rng: np.random.Generator) -> tuple[int, int, int]:
    """A random shade that goes by the name."""
    hue, saturation, value = (rng.uniform(low, high) for low, high in _HUES[name])
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def two_colours(rng: np.random.Generator) -> tuple[str, str]:
    """Names of an ink and a ground that can be told apart."""
    while True:
        ink, ground = (COLOURS[i] for i in rng.integers(len(COLOURS), size=2))
        if ink != ground and frozenset({ink, ground}) not in _CLASHES:
            return ink, ground


def printed(character: str, font: str, rng: np.random.Generator) -> Image.Image:
    """The mask of a character in a font, of random size, weight and attitude."""
    ink = glyph(character, font)
    height = rng.uniform(0.55, 0.95)
    aspect = ink.width / ink.height * rng.uniform(0.8, 1.25)
    mask = placed(ink, min(0.92, height * aspect), height)
    mask = bent(thickened(mask, rng), rng, rng.uniform(0.0, 0.06))
    return turned(mask, rng, 0.2, 0.25, 0.06)


def single(name: str, rng: np.random.Generator) -> Image.Image:
    """The mask of one shape."""
    mask = bent(shape(name, rng.uniform(0.55, 0.92)), rng, 0.03)
    return turned(mask, rng, 0.3, 0.1, 0.05)


def nested(outer: str, inner: str, rng: np.random.Generator) -> Image.Image:
    """The mask of a shape with another cut out of its middle."""
    size = rng.uniform(0.82, 0.98)
    room = {"triangle": 0.42, "star": 0.38, "diamond": 0.46, "heart": 0.46}.get(outer, 0.58)
    whole = np.asarray(shape(outer, size)).copy()
    hole = np.asarray(shape(inner, size * room * rng.uniform(0.88, 1.05)))
    if outer in ("triangle", "star"):
        hole = np.roll(hole, round(SIDE * (0.1 if outer == "triangle" else 0.02)), axis=0)
    mask = Image.fromarray(np.where(hole > 127, 0, whole).astype(np.uint8))
    return turned(bent(mask, rng, 0.02), rng, 0.2, 0.08, 0.03)


def blob(rng: np.random.Generator) -> Image.Image:
    """The mask of a smooth patch without a shape of its own."""
    cells = Image.fromarray(rng.integers(0, 256, (5, 5)).astype(np.uint8))
    grown = np.asarray(cells.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
    grown = grown - np.hypot(*(np.mgrid[0:SIDE, 0:SIDE] - SIDE / 2)) * 7.0
    return Image.fromarray(((grown > np.quantile(grown, 0.55)) * 255).astype(np.uint8))


def painted(
    mask: Image.Image,
    ink: tuple[int, int, int],
    ground: tuple[int, int, int],
    rng: np.random.Generator,
) -> Pixels:
    """The picture: ink where the mask is, ground elsewhere, a little noise over both."""
    small = mask.resize((SIZE, SIZE), Image.Resampling.BOX)
    if rng.random() < 0.2:
        small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0)))
    share = np.asarray(small, dtype=np.float32)[:, :, None] / 255
    picture = share * np.asarray(ink, np.float32) + (1 - share) * np.asarray(ground, np.float32)
    sigma = 255 * 0.03 * rng.random()
    return _bytes(picture + rng.normal(0, sigma, picture.shape).astype(np.float32))


def scanned(mask: Image.Image, rng: np.random.Generator, cells: int = 8) -> Pixels:
    """White on black through a coarse scanner of `cells` × `cells`, grown back to size.

    Like the forms of the census: cut out, and stretched to the scanner's full height.
    """
    if rng.random() < 0.8:
        mask = _stretched(mask, rng)
    coarse = np.asarray(mask.resize((cells, cells), Image.Resampling.BOX), dtype=np.float32)
    gain = rng.uniform(0.9, 1.5)
    levels = np.round(np.clip(coarse * gain, 0, 255) / 255 * 16) / 16 * 255
    grown = Image.fromarray(levels.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(grown)[:, :, None], 3, axis=2)


def _stretched(mask: Image.Image, rng: np.random.Generator) -> Image.Image:
    ink = mask.crop(mask.getbbox() or (0, 0, SIDE, SIDE))
    width = min(1.0, ink.width / ink.height * rng.uniform(0.85, 1.2))
    return placed(ink, width, rng.uniform(0.94, 1.0))


def _bytes(picture: NDArray[np.floating[Any]]) -> Pixels:
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


# What the streams draw.

LAMP = np.asarray((1.0, 0.9, 0.7), np.float32)
"""Share of red, green and blue that a warm lamp leaves."""
SNAP_CELLS = 16
SNAP_NOISE = 0.08


def snapped(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """The picture as a poor camera sees it: few pixels, lamp light, little contrast, noise.

    Pre-training never looks through it, so what it learnt is useful here and not enough.
    """
    coarse = Image.fromarray(picture).resize((SNAP_CELLS, SNAP_CELLS), Image.Resampling.BOX)
    seen = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32)
    contrast = rng.uniform(0.45, 0.85)
    middle = 128 + 90 * rng.uniform(-1, 1) * (1 - contrast)
    lit = (middle + (seen - 128) * contrast) * LAMP
    return _bytes(lit + rng.normal(0, 255 * SNAP_NOISE, lit.shape).astype(np.float32))


def draw_letter(rng: np.random.Generator, character: str, font: str) -> Pixels:
    """A printed character in any two colours."""
    return _snapped_in_two_colours(printed(character, font, rng), rng)


def draw_nested(rng: np.random.Generator, outer: str, inner: str) -> Pixels:
    """A shape in a shape, in any two colours."""
    return _snapped_in_two_colours(nested(outer, inner, rng), rng)


def draw_texture(rng: np.random.Generator, name: str) -> Pixels:
    """A texture in any two colours."""
    return _snapped_in_two_colours(texture(name, rng), rng)


def draw_colour(rng: np.random.Generator, name: str) -> Pixels:
    """A patch of a colour on another ground."""
    mask = blob(rng)
    while True:
        ground = two_colours(rng)[1]
        if ground != name and frozenset({ground, name}) not in _CLASHES:
            picture = painted(mask, colour(name, rng), colour(ground, rng), rng)
            return snapped(picture, rng)


def _snapped_in_two_colours(mask: Image.Image, rng: np.random.Generator) -> Pixels:
    ink, ground = two_colours(rng)
    return snapped(painted(mask, colour(ink, rng), colour(ground, rng), rng), rng)
