"""Images that are drawn when they are asked for: letters, shapes, textures, colours.

Guarantees that a row's pixels depend on its domain, class, split and number alone, and
not on the experiment's seeds: everybody draws the same set. Letters and digits are in
fonts, and shapes in company, that tiny-CLIP's pre-training never saw.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from PIL import Image

from raycl.config.seeds import rng
from raycl.drawing.fonts import HELD_OUT_FONTS
from raycl.drawing.masks import Pixels
from raycl.drawing.patterns import STREAM_SHAPES, TEXTURES
from raycl.drawing.scenes import COLOURS, draw_colour, draw_letter, draw_nested, draw_texture
from raycl.streams.image_set import LabelledImages

SEED = 0
"""Of the drawings themselves; the experiment's seeds choose among them."""


@dataclass(frozen=True)
class Character:
    """A printed character; a class goes through all fonts in turn."""

    name: str
    character: str


@dataclass(frozen=True)
class Nested:
    """A shape within a shape."""

    name: str
    outer: str
    inner: str


@dataclass(frozen=True)
class Texture:
    """A pattern that fills the picture."""

    name: str


@dataclass(frozen=True)
class Colour:
    """A patch of one colour."""

    name: str
    colour: str


Subject = Character | Nested | Texture | Colour

LETTERS = tuple(Character(f"letter {c}", c) for c in string.ascii_uppercase)
DIGITS = tuple(Character(f"digit {c}", c) for c in string.digits)
SHAPES = tuple(Nested(f"{inner} in a {outer}", outer, inner) for outer, inner in STREAM_SHAPES)
PATTERNS = tuple(Texture(name) for name in TEXTURES)
PATCHES = tuple(Colour(f"{name} patch", name) for name in COLOURS)


@dataclass(frozen=True)
class Drawing:
    """One row: what is drawn, and which of its drawings."""

    subject: Subject
    split: str
    number: int


@dataclass(frozen=True)
class DrawnPictures:
    """The pictures of one domain."""

    domain: str
    drawings: tuple[Drawing, ...]

    def place(self, row: int) -> str:
        drawing = self.drawings[row]
        return f"{self.domain}: {drawing.subject.name}, {drawing.split} drawing {drawing.number}"

    def image(self, row: int) -> Image.Image:
        drawing = self.drawings[row]
        name = drawing.subject.name
        generator = rng(SEED, self.domain, name, drawing.split, drawing.number)
        return Image.fromarray(_draw(drawing, generator))


def font_of(number: int) -> str:
    """The font of a class's drawing of this number."""
    return HELD_OUT_FONTS[number % len(HELD_OUT_FONTS)]


def _draw(drawing: Drawing, generator: np.random.Generator) -> Pixels:
    match drawing.subject:
        case Character(character=character):
            return draw_letter(generator, character, font_of(drawing.number))
        case Nested(outer=outer, inner=inner):
            return draw_nested(generator, outer, inner)
        case Texture(name=name):
            return draw_texture(generator, name)
        case Colour(colour=colour):
            return draw_colour(generator, colour)
        case _:
            assert_never(drawing.subject)


def drawn(domain: str, subjects: Sequence[Subject], train: int, test: int) -> LabelledImages:
    """A domain of so many drawings of each subject; train and test draw apart."""
    rows = [
        (label, Drawing(subject, split, number))
        for label, subject in enumerate(subjects)
        for split, count in (("train", train), ("test", test))
        for number in range(count)
    ]
    return LabelledImages(
        name=domain,
        class_names=tuple(subject.name for subject in subjects),
        class_domain=np.zeros(len(subjects), np.int64),
        domains=(domain,),
        labels=np.asarray([label for label, _ in rows], np.int64),
        splits=np.asarray([drawing.split for _, drawing in rows]),
        pictures=DrawnPictures(domain, tuple(drawing for _, drawing in rows)),
    )
