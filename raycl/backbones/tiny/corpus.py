"""The pictures and captions that tiny-CLIP learns from.

A scene is a picture and what is true of it; a caption says some of that. Because both are
known, every caption in a batch can be judged against every picture: two pictures of a
seven are both right for "a seven", and neither is pushed away from it.

No handwriting is drawn here, and no font and no pair of nested shapes that a stream shows.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from raycl.drawing.fonts import PRETRAINING_FONTS
from raycl.drawing.masks import Pixels, bent
from raycl.drawing.patterns import OUTER_SHAPES, SHAPES, STREAM_SHAPES, TEXTURES, texture
from raycl.drawing.scenes import (
    COLOURS,
    blob,
    colour,
    nested,
    painted,
    printed,
    scanned,
    single,
    two_colours,
)

CORPUS_REVISION = 1
"""Raised when any picture or caption changes."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = string.ascii_uppercase


class Slot(IntEnum):
    """What can be said of a picture; each holds one value or none."""

    FAMILY = 0
    SUBJECT = 1
    INNER = 2
    INK = 3
    GROUND = 4


NOTHING = -1
"""Value of a slot that does not apply: no caption asks for it."""
ALONE = len(SHAPES)
"""INNER of a shape with nothing inside."""

DIGIT, LETTER, SHAPE, NESTED, TEXTURE, COLOUR = range(6)
FAMILIES = ("digit", "letter", "shape", "shape in a shape", "texture", "patch")
SHARES = (0.40, 0.22, 0.07, 0.12, 0.11, 0.08)
"""How often each family is drawn."""

NESTED_PAIRS = tuple(
    (outer, inner)
    for outer in OUTER_SHAPES
    for inner in SHAPES
    if outer != inner and (outer, inner) not in STREAM_SHAPES
)

Truth = NDArray[np.int16]


@dataclass(frozen=True)
class Scene:
    """A picture and the value of each slot."""

    picture: Pixels
    truth: Truth


@dataclass(frozen=True)
class Caption:
    """A text and what it claims: NOTHING where it says nothing."""

    text: str
    claim: Truth


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random picture."""
    family = int(rng.choice(len(SHARES), p=SHARES))
    draw = _DRAWERS[family]
    picture, values = draw(rng)
    truth = np.full(len(Slot), NOTHING, np.int16)
    truth[Slot.FAMILY] = family
    for slot, value in values.items():
        truth[slot] = value
    return Scene(picture, truth)


Drawn = tuple[Pixels, dict[Slot, int]]


def _digit(rng: np.random.Generator) -> Drawn:
    digit = int(rng.integers(10))
    font = PRETRAINING_FONTS[rng.integers(len(PRETRAINING_FONTS))]
    mask = bent(printed(str(digit), font, rng), rng, rng.uniform(0.0, 0.06))
    said = {Slot.SUBJECT: digit}
    if rng.random() < 0.5:
        white_on_black = {Slot.INK: COLOURS.index("white"), Slot.GROUND: COLOURS.index("black")}
        return scanned(mask, rng, cells=int(rng.choice((8, 8, 8, 12, 16)))), said | white_on_black
    return _painted(mask, said, rng)


def _letter(rng: np.random.Generator) -> Drawn:
    letter = int(rng.integers(26))
    font = PRETRAINING_FONTS[rng.integers(len(PRETRAINING_FONTS))]
    character = LETTERS[letter] if rng.random() < 0.8 else LETTERS[letter].lower()
    mask = printed(character, font, rng)
    return _painted(mask, {Slot.SUBJECT: letter}, rng)


def _shape(rng: np.random.Generator) -> Drawn:
    subject = int(rng.integers(len(SHAPES)))
    mask = single(SHAPES[subject], rng)
    return _painted(mask, {Slot.SUBJECT: subject, Slot.INNER: ALONE}, rng)


def _nested(rng: np.random.Generator) -> Drawn:
    outer, inner = NESTED_PAIRS[rng.integers(len(NESTED_PAIRS))]
    said = {Slot.SUBJECT: SHAPES.index(outer), Slot.INNER: SHAPES.index(inner)}
    return _painted(nested(outer, inner, rng), said, rng)


def _texture(rng: np.random.Generator) -> Drawn:
    subject = int(rng.integers(len(TEXTURES)))
    picture, _ = _painted(texture(TEXTURES[subject], rng), {}, rng)
    # Neither of its two colours is the texture's own.
    return picture, {Slot.SUBJECT: subject}


def _patch(rng: np.random.Generator) -> Drawn:
    return _painted(blob(rng), {}, rng)


def _painted(mask: object, said: dict[Slot, int], rng: np.random.Generator) -> Drawn:
    ink, ground = two_colours(rng)
    picture = painted(mask, colour(ink, rng), colour(ground, rng), rng)  # type: ignore[arg-type]
    return picture, said | {Slot.INK: COLOURS.index(ink), Slot.GROUND: COLOURS.index(ground)}


_DRAWERS: tuple[Callable[[np.random.Generator], Drawn], ...] = (
    _digit, _letter, _shape, _nested, _texture, _patch,
)  # fmt: skip


FRAMES = (
    ("a photo of a {}.", 0.4),
    ("{}", 0.15),
    ("a {}", 0.08),
    ("a photo of a {}", 0.05),
    ("a picture of a {}.", 0.07),
    ("an image of a {}.", 0.05),
    ("a photo of the {}.", 0.05),
    ("a drawing of a {}.", 0.05),
    ("this is a {}.", 0.05),
    ("a small photo of a {}.", 0.05),
)


def describe(truth: Truth, rng: np.random.Generator) -> Caption:
    """A caption that is true of a picture, of random detail."""
    claim = np.full(len(Slot), NOTHING, np.int16)

    def say(slot: Slot, chance: float) -> bool:
        if truth[slot] == NOTHING or rng.random() >= chance:
            return False
        claim[slot] = truth[slot]
        return True

    family = int(truth[Slot.FAMILY])
    if family == COLOUR:
        claim[Slot.INK] = truth[Slot.INK]
        forms = ("{}", "{} thing", "{} patch", "{} colour")
        words = [_pick(rng, forms).format(COLOURS[truth[Slot.INK]])]
    else:
        words = [_subject(truth, claim, rng)]
        if say(Slot.INK, 0.25):
            words.insert(0, COLOURS[truth[Slot.INK]])
    if say(Slot.GROUND, 0.12):
        words.append(f"on {COLOURS[truth[Slot.GROUND]]}")
    frames, weights = zip(*FRAMES, strict=True)
    frame = frames[rng.choice(len(frames), p=weights)]
    return Caption(frame.format(" ".join(words)), claim)


def _subject(truth: Truth, claim: Truth, rng: np.random.Generator) -> str:
    family, subject, inner = (int(truth[s]) for s in (Slot.FAMILY, Slot.SUBJECT, Slot.INNER))
    claim[Slot.FAMILY] = family
    if rng.random() < 0.06:
        return FAMILIES[family]
    claim[Slot.SUBJECT] = subject
    claim[Slot.INNER] = inner
    if family == DIGIT:
        name = _pick(rng, (str(subject), WORDS[subject]))
        return _pick(rng, ("{}", "{}", "digit {}", "number {}")).format(name)
    if family == LETTER:
        return _pick(rng, ("{}", "letter {}", "letter {}")).format(LETTERS[subject])
    if family == SHAPE:
        return SHAPES[subject]
    if family == NESTED:
        # Half a claim, too: what is outside, or what is inside, whatever the other is.
        part = rng.random()
        if part < 0.12:
            claim[Slot.INNER] = NOTHING
            return f"shape in a {SHAPES[subject]}"
        if part < 0.24:
            claim[Slot.SUBJECT] = NOTHING
            return f"{SHAPES[inner]} in a shape"
        return f"{SHAPES[inner]} in a {SHAPES[subject]}"
    return _pick(rng, ("{}", "{}", "texture of {}", "pattern of {}")).format(TEXTURES[subject])


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]


def agreement(truths: Truth, claims: Truth) -> NDArray[np.bool_]:
    """(pictures, captions): whether a caption is true of a picture."""
    said = claims != NOTHING
    holds = (truths[:, None] == claims[None]) | ~said[None]
    out: NDArray[np.bool_] = holds.all(axis=2)
    return out


@dataclass(frozen=True)
class Batch:
    """Pictures, the different captions among theirs, and which is true of which."""

    pictures: Pixels
    texts: tuple[str, ...]
    caption: NDArray[np.int64]
    """Each picture's own among the texts."""
    agreement: NDArray[np.bool_]


def draw_batch(rng: np.random.Generator, size: int) -> Batch:
    """`size` pictures with one caption each; a caption that repeats is kept once."""
    scenes = [draw_scene(rng) for _ in range(size)]
    captions = [describe(scene.truth, rng) for scene in scenes]
    claims = {caption.text: caption.claim for caption in captions}
    place = {text: i for i, text in enumerate(claims)}
    return Batch(
        pictures=np.stack([scene.picture for scene in scenes]),
        texts=tuple(claims),
        caption=np.asarray([place[caption.text] for caption in captions]),
        agreement=agreement(
            np.stack([scene.truth for scene in scenes]), np.stack(list(claims.values()))
        ),
    )


def sample_captions(rng: np.random.Generator, count: int) -> list[str]:
    """Captions alone, to learn a vocabulary from."""
    return [describe(draw_scene(rng).truth, rng).text for _ in range(count)]
