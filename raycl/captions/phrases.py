"""The phrase bank: what may be said of a picture, and pictures that show what words may not.

    ink, ground           found by text: tiny-CLIP's captions, and any CLIP's, name colours
    stroke, slant, size   found by exemplars: characters drawn to show the phrase, all else random

Guarantees: exemplars are the same bytes in every process, in pre-training's fonts only; so
drawings in the held-out fonts can judge them.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from raycl.config.captions import AttributesCaptioner, Slot
from raycl.config.seeds import rng
from raycl.drawing.fonts import PRETRAINING_FONTS
from raycl.drawing.masks import SIDE, Pixels, bent, glyph, placed
from raycl.drawing.scenes import COLOURS, colour, painted, scanned, two_colours

BANK_REVISION = 1
"""Raised when a phrase, its exemplars or how it is found changes."""

CHARACTERS = string.digits + string.ascii_uppercase
UPRIGHT = 0.08
LEANING = (0.22, 0.5)
"""Shear of what leans, to either side; what stands upright has less than `UPRIGHT`."""


@dataclass(frozen=True)
class TextSlot:
    """Phrases that CLIP is asked for in words."""

    name: str
    phrases: tuple[str, ...]
    asked: str
    """With `{phrase}` and `{name}`."""


@dataclass(frozen=True)
class DrawnSlot:
    """Phrases that pictures show."""

    name: str
    phrases: tuple[str, ...]


STROKE = DrawnSlot("stroke", ("thin", "bold"))
SLANT = DrawnSlot("slant", ("leaning left", "upright", "leaning right"))
SIZE = DrawnSlot("size", ("small", "large"))
INK = TextSlot("ink", COLOURS, "a photo of a {phrase} {name}.")
GROUND = TextSlot("ground", COLOURS, "a photo of a {name} on {phrase}.")

BANK: dict[Slot, TextSlot | DrawnSlot] = {
    "ink": INK,
    "ground": GROUND,
    "stroke": STROKE,
    "slant": SLANT,
    "size": SIZE,
}


def slots_of(spec: AttributesCaptioner) -> list[TextSlot | DrawnSlot]:
    """The slots that are asked for: of the bank, then the user's own."""
    own = [
        TextSlot(name, words, "a photo of a {name} {phrase}.")
        for name, words in spec.phrases.items()
    ]
    return [*(BANK[name] for name in spec.slots), *own]


def caption_of(name: str, found: dict[str, str]) -> str:
    """The words of a caption: what is found of each slot, around the class's name.

    Left unsaid are the ink of a class that is named by a colour, and a ground that is the ink.
    """
    said = dict(found)
    if set(name.lower().split()) & set(COLOURS):
        said.pop("ink", None)
    if said.get("ground") == said.get("ink"):
        said.pop("ground", None)
    before = [said[slot] for slot in ("size", "stroke", "ink") if slot in said]
    words = ["a", *before, name]
    if "ground" in said:
        words += ["on", said["ground"]]
    behind = [text for slot, text in said.items() if slot not in BANK]
    text = " ".join([*words, *behind])
    slant = said.get("slant")
    return f"{text}, {slant}" if slant is not None and slant != "upright" else text


def exemplar(slot: str, phrase: str, number: int, *, fonts: tuple[str, ...], seed: int) -> Pixels:
    """A character that shows the phrase; which one, and all else, is random."""
    r = rng(seed, "exemplar", slot, phrase, number)
    character = CHARACTERS[r.integers(len(CHARACTERS))]
    font = fonts[r.integers(len(fonts))]
    shown = {slot: phrase}
    stroke = shown.get("stroke") or STROKE.phrases[r.integers(2)]
    slant = shown.get("slant") or SLANT.phrases[r.integers(3)]
    size = shown.get("size") or SIZE.phrases[r.integers(2)]
    ink = glyph(character, font)
    height = r.uniform(0.45, 0.6) if size == "small" else r.uniform(0.82, 0.95)
    width = height * ink.width / ink.height * r.uniform(0.85, 1.2)
    mask = _of_stroke(placed(ink, min(0.92, width), height), stroke, font)
    mask = _leaning(bent(mask, r, 0.03), slant, font, r)
    if r.random() < 0.5:
        # Unlike `scanned`, which stretches to full height and so would undo a size.
        return _grown(mask, int(r.choice((8, 12, 16)))) if slot == "size" else scanned(mask, r)
    a, b = two_colours(r)
    return painted(mask, colour(a, r), colour(b, r), r)


def exemplars(spec: AttributesCaptioner, slot: DrawnSlot, phrase: str) -> list[Image.Image]:
    """The pictures that a phrase is found by."""
    return [
        Image.fromarray(exemplar(slot.name, phrase, n, fonts=PRETRAINING_FONTS, seed=0))
        for n in range(spec.exemplars)
    ]


def _of_stroke(mask: Image.Image, stroke: str, font: str) -> Image.Image:
    """As thin or as bold as the word, whatever the font's own weight."""
    is_bold = "Bold" in font or font in ("cmb10.ttf",) or "Bol" in font
    if stroke == "bold":
        return mask.filter(ImageFilter.MaxFilter(3 if is_bold else 5))
    return mask.filter(ImageFilter.MinFilter(5 if is_bold else 3))


def _leaning(mask: Image.Image, slant: str, font: str, r: np.random.Generator) -> Image.Image:
    """Sheared about the middle; an italic font leans by itself."""
    match slant:
        case "leaning right":
            shear = r.uniform(*LEANING)
        case "leaning left":
            shear = -r.uniform(*LEANING)
        case _:
            shear = r.uniform(-UPRIGHT, UPRIGHT)
    if any(mark in font for mark in ("Oblique", "Italic", "BolIta", "cmti")):
        shear -= math.tan(math.radians(12))
    half = SIDE / 2
    matrix = (1.0, shear, -shear * half, 0.0, 1.0, 0.0)
    return mask.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _grown(mask: Image.Image, cells: int) -> Pixels:
    """White on black through a coarse scanner that keeps the size."""
    coarse = mask.resize((cells, cells), Image.Resampling.BOX)
    grown = np.asarray(coarse.resize((32, 32), Image.Resampling.BICUBIC))
    return np.repeat(grown[:, :, None], 3, axis=2)
