"""The built-in images: the real digits, and drawings that are the same for everybody."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from PIL import ImageFont

from raycl.config.streams import DigitsStream, GlyphsStream, ImageStream, TinyXtailStream
from raycl.drawing import fonts, masks
from raycl.drawing.fonts import HELD_OUT_FONTS, PRETRAINING_FONTS
from raycl.streams import content, drawn
from raycl.streams.content import content_digests
from raycl.streams.images import ImageSet, read_images

BUILT_IN: list[ImageStream] = [DigitsStream(), GlyphsStream(), TinyXtailStream()]

ELSEWHERE = """
import hashlib, json, sys
from raycl.config.streams import TinyXtailStream
from raycl.streams.images import read_images
images = read_images(TinyXtailStream())
rows = json.loads(sys.argv[1])
print(json.dumps([hashlib.sha256(images.image(row).tobytes()).hexdigest() for row in rows]))
"""


def counts(images: ImageSet, split: str) -> set[int]:
    """How many images each class has in a split."""
    labels = images.labels[images.splits == split]
    return set(np.bincount(labels, minlength=len(images.class_names)).tolist())


def test_digits_are_the_real_ones() -> None:
    from sklearn.datasets import load_digits

    real = load_digits()
    images = read_images(DigitsStream())
    assert images.class_names == tuple("0123456789")
    assert images.labels.tolist() == real.target.tolist()
    assert images.splits.tolist() == ["train"] * 1197 + ["test"] * 600
    for row in (0, 700, 1796):
        picture = images.image(row)
        assert picture.size == (8, 8) and picture.mode == "RGB"
        grey = np.asarray(picture)[:, :, 1]
        assert np.array_equal(np.round(grey / 255 * 16), real.images[row])
        assert grey[0, 0] == 0, "white ink on black"


def test_glyphs_are_letters_and_digits() -> None:
    images = read_images(GlyphsStream())
    assert len(images.class_names) == 36
    assert images.class_names[0] == "letter A" and images.class_names[-1] == "digit 9"
    assert counts(images, "train") == {40} and counts(images, "test") == {20}


def test_tiny_xtail_joins_five_domains() -> None:
    images = read_images(TinyXtailStream())
    assert images.domains == ("digits", "letters", "shapes", "textures", "colours")
    assert np.bincount(images.class_domain).tolist() == [10, 26, 10, 12, 12]
    assert {"7", "letter Q", "star in a circle", "zigzag", "red patch"} <= set(images.class_names)
    assert len(images) == 4000
    digits = images.class_domain[images.labels] == 0
    assert np.bincount(images.labels[digits & (images.splits == "train")]).tolist() == [60] * 10
    assert np.bincount(images.labels[digits & (images.splits == "test")]).tolist() == [40] * 10
    whole = read_images(DigitsStream())
    first_seven = int(np.flatnonzero(whole.labels == 7)[0])
    here = int(np.flatnonzero(images.labels == 7)[0])
    assert images.image(here).tobytes() == whole.image(first_seven).tobytes()
    assert images.place(here) == whole.place(first_seven)


@pytest.mark.parametrize("spec", BUILT_IN, ids=lambda spec: spec.kind)
def test_rows_are_labelled_alike_and_no_image_is_there_twice(spec: ImageStream) -> None:
    images, again = read_images(spec), read_images(spec)
    rows = range(0, len(images), 7)
    seen = [images.image(row).tobytes() for row in rows]
    assert seen == [again.image(row).tobytes() for row in rows]
    if spec.kind != "digits":
        assert len(set(seen)) == len(seen)
    assert np.array_equal(images.labels, again.labels)
    assert all(images.image(row).mode == "RGB" for row in (0, len(images) - 1))


def test_another_process_draws_the_same_bytes() -> None:
    images = read_images(TinyXtailStream())
    rows = [0, 1500, 2400, 2900, 3500, 3999]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, json.dumps(rows)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    here = [hashlib.sha256(images.image(row).tobytes()).hexdigest() for row in rows]
    assert json.loads(done.stdout) == here


def test_train_and_test_draw_apart() -> None:
    images = read_images(GlyphsStream())
    of_class = [images.image(row).tobytes() for row in np.flatnonzero(images.labels == 3)]
    assert len(set(of_class)) == len(of_class) == 60


def test_only_fonts_that_pretraining_never_saw_are_drawn_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: set[str] = set()
    real = fonts.font_file

    def watched(name: str) -> object:
        opened.add(name)
        return real(name)

    monkeypatch.setattr(masks, "font_file", watched)
    masks.glyph.cache_clear()
    masks._face.cache_clear()
    images = read_images(GlyphsStream())
    for split in ("train", "test"):
        opened.clear()
        masks.glyph.cache_clear()
        masks._face.cache_clear()
        for row in np.flatnonzero((images.labels == 5) & (images.splits == split)):
            images.image(int(row))
        assert opened == set(HELD_OUT_FONTS), "each class and split goes through all of them"
    assert not opened & set(PRETRAINING_FONTS)


def test_every_font_has_every_character() -> None:
    """A character that a font lacks would be drawn as a box."""
    for name in HELD_OUT_FONTS:
        face = ImageFont.truetype(fonts.font_file(name), 40, layout_engine=ImageFont.Layout.BASIC)
        box = bytes(face.getmask("\ue123"))
        for subject in (*drawn.LETTERS, *drawn.DIGITS):
            assert bytes(face.getmask(subject.character)) != box, (name, subject.name)


def test_what_decides_the_drawings_is_their_content(monkeypatch: pytest.MonkeyPatch) -> None:
    glyphs, xtail = content_digests(GlyphsStream()), content_digests(TinyXtailStream())
    assert set(glyphs) < set(xtail) and set(content_digests(DigitsStream())) < set(xtail)
    assert content_digests(GlyphsStream(tasks=3, shots=2)) == glyphs
    monkeypatch.setattr(content, "DRAWING_REVISION", content.DRAWING_REVISION + 1)
    changed = content_digests(GlyphsStream())
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"another {name}")
    assert all(a != b for a, b in pairwise([glyphs, changed, content_digests(GlyphsStream())]))
