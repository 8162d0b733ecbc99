"""Masks of plane shapes and of textures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from raycl.drawing.masks import SIDE

SHAPES = (
    "circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart", "arrow", "moon",
)  # fmt: skip

STREAM_SHAPES = (
    ("circle", "star"),
    ("square", "heart"),
    ("diamond", "circle"),
    ("heart", "cross"),
    ("star", "square"),
    ("circle", "triangle"),
    ("square", "moon"),
    ("diamond", "arrow"),
    ("heart", "ring"),
    ("triangle", "diamond"),
)
"""(outer, inner) pairs that only streams draw: pre-training sees each shape, alone and in
other company, and never these two together."""

OUTER_SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart")
"""Shapes with room for another inside."""

TEXTURES = (
    "horizontal stripes", "vertical stripes", "diagonal stripes", "checkerboard", "dots", "grid",
    "waves", "zigzag", "bricks", "rings", "rays", "noise",
)  # fmt: skip


def shape(name: str, size: float) -> Image.Image:
    """A filled shape in the middle, of a share of the canvas."""
    mask = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(mask)
    half, r = SIDE / 2, size * SIDE / 2
    box = (half - r, half - r, half + r, half + r)
    match name:
        case "circle":
            draw.ellipse(box, fill=255)
        case "ring":
            draw.ellipse(box, fill=255)
            draw.ellipse(tuple(half + (b - half) * 0.58 for b in box), fill=0)
        case "moon":
            draw.ellipse(box, fill=255)
            draw.ellipse((box[0] + 0.6 * r, box[1] - 0.1 * r, box[2] + 0.6 * r, box[3]), fill=0)
        case _:
            draw.polygon([(half + x * r, half + y * r) for x, y in outline(name)], fill=255)
    return mask


def outline(name: str) -> list[tuple[float, float]]:
    """The corners of a shape, as shares of its radius."""
    match name:
        case "square":
            return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
        case "diamond":
            return [(0, -1), (0.8, 0), (0, 1), (-0.8, 0)]
        case "triangle":
            return [(0, -0.95), (0.95, 0.8), (-0.95, 0.8)]
        case "star":
            angles = [math.pi * k / 5 - math.pi / 2 for k in range(10)]
            radii = [1.0, 0.42] * 5
            return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
        case "cross":
            w = 0.32
            return [
                (-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1), (-w, 1), (-w, w),
                (-1, w), (-1, -w), (-w, -w),
            ]  # fmt: skip
        case "heart":
            t = np.linspace(0, 2 * math.pi, 40)
            x = 16 * np.sin(t) ** 3
            y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
            return [(float(a) / 17, -float(b + 2) / 17) for a, b in zip(x, y, strict=True)]
        case "arrow":
            return [
                (-1, -0.25), (0.15, -0.25), (0.15, -0.75), (1, 0), (0.15, 0.75), (0.15, 0.25),
                (-1, 0.25),
            ]  # fmt: skip
        case _:
            raise ValueError(f"no such shape: {name}")


def texture(name: str, rng: np.random.Generator) -> Image.Image:
    """A mask that fills the canvas with a texture of random period and phase."""
    period = rng.uniform(10, 22)
    y, x = np.mgrid[0:SIDE, 0:SIDE] + rng.uniform(0, period, 2)[:, None, None]
    grey = _field(name, x, y, period, rng)
    return Image.fromarray((np.clip(grey, 0, 1) * 255).astype(np.uint8))


def _field(
    name: str,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    period: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    u, v = x / period, y / period
    match name:
        case "horizontal stripes":
            return _band(v)
        case "vertical stripes":
            return _band(u)
        case "diagonal stripes":
            return _band((u + v * (1 if rng.random() < 0.5 else -1)) / math.sqrt(2))
        case "checkerboard":
            return np.abs(_band(u) - _band(v))
        case "dots":
            return _edge(0.3 - np.hypot(u % 1 - 0.5, v % 1 - 0.5), period)
        case "grid":
            return np.maximum(_edge(0.12 - np.abs(u % 1 - 0.5), period),
                              _edge(0.12 - np.abs(v % 1 - 0.5), period))  # fmt: skip
        case "waves":
            return _band(v + 0.35 * np.sin(2 * math.pi * u))
        case "zigzag":
            return _band(v + 1.2 * np.abs(u % 1 - 0.5))
        case "bricks":
            shifted = u / 1.6 + 0.5 * (np.floor(v) % 2)
            gap = np.minimum(np.abs(shifted % 1 - 0.5) * 1.6, np.abs(v % 1 - 0.5))
            return _edge(gap - 0.1, period)
        case "rings":
            cx, cy = rng.uniform(0.35, 0.65, 2) * SIDE / period
            return _band(np.hypot(u - cx, v - cy))
        case "rays":
            cx, cy = rng.uniform(0.4, 0.6, 2) * SIDE / period
            count = int(rng.integers(5, 10))
            return _band(np.arctan2(v - cy, u - cx) / (2 * math.pi) * count)
        case "noise":
            coarse = int(rng.integers(12, 28))
            cells = Image.fromarray(rng.integers(0, 256, (coarse, coarse)).astype(np.uint8))
            grown = cells.resize((SIDE, SIDE), Image.Resampling.NEAREST)
            return np.asarray(grown, dtype=np.float64) / 255
        case _:
            raise ValueError(f"no such texture: {name}")


def _band(phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Soft-edged stripes, half on and half off."""
    return np.clip(0.5 + 3.0 * np.sin(2 * math.pi * phase), 0, 1)


def _edge(inside: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    return np.clip(0.5 + inside * period, 0, 1)
