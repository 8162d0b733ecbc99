"""Grey masks of what is drawn, and how they are bent: the shapes before any colour.

A mask is SIDE × SIDE, 0 to 255, on a finer grid than the finished picture.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from raycl.drawing.fonts import font_file

SIDE = 64
_GLYPH_POINTS = 56
_MESH = 3
"""Cells across the grid whose corners are pulled about."""

Pixels = NDArray[np.uint8]


@functools.lru_cache(maxsize=2048)
def glyph(character: str, font: str) -> Image.Image:
    """A character in a font, cut to its ink."""
    face = _face(font)
    left, top, right, bottom = face.getbbox(character)
    mask = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))))
    ImageDraw.Draw(mask).text((-left, -top), character, fill=255, font=face)
    return mask


@functools.lru_cache(maxsize=64)
def _face(font: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_file(font), _GLYPH_POINTS, layout_engine=ImageFont.Layout.BASIC)


def placed(ink: Image.Image, width: float, height: float) -> Image.Image:
    """The ink scaled to a share of the canvas and put in its middle."""
    size = (max(2, round(width * SIDE)), max(2, round(height * SIDE)))
    canvas = Image.new("L", (SIDE, SIDE))
    scaled = ink.resize(size, Image.Resampling.BILINEAR)
    canvas.paste(scaled, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return canvas


def turned(
    mask: Image.Image, rng: np.random.Generator, angle: float, shear: float, shift: float
) -> Image.Image:
    """Rotated, slanted and moved at random, within the given bounds (radians, shares)."""
    a = rng.uniform(-angle, angle)
    s = rng.uniform(-shear, shear)
    dx, dy = rng.uniform(-shift, shift, 2) * SIDE
    cos, sin, half = math.cos(a), math.sin(a), SIDE / 2
    ax, ay = cos + s * sin, -sin + s * cos
    offset_x = half - ax * (half + dx) - ay * (half + dy)
    offset_y = half - sin * (half + dx) - cos * (half + dy)
    matrix = (ax, ay, offset_x, sin, cos, offset_y)
    return mask.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def bent(mask: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    """The corners of a coarse mesh pulled about by up to `amount` of the side."""
    cell = SIDE / _MESH
    grid = np.stack(np.meshgrid(*[np.arange(_MESH + 1) * cell] * 2, indexing="xy"), -1)
    pulled = grid + rng.uniform(-amount, amount, grid.shape) * SIDE
    mesh = []
    for row in range(_MESH):
        for column in range(_MESH):
            box = tuple(
                round(v) for v in (column * cell, row * cell, (column + 1) * cell, (row + 1) * cell)
            )
            corners = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
            quad = tuple(float(v) for corner in corners for v in pulled[corner])
            mesh.append((box, quad))
    return mask.transform((SIDE, SIDE), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def thickened(mask: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Sometimes a heavier or a lighter pen."""
    draw = rng.random()
    if draw < 0.25:
        return mask.filter(ImageFilter.MaxFilter(5 if draw < 0.08 else 3))
    if draw < 0.35:
        return mask.filter(ImageFilter.MinFilter(3))
    return mask
