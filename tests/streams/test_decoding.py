"""Whatever an image file holds becomes RGB, or an error that names it."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raycl.errors import DataError
from raycl.streams.decoding import CorruptImageError, decode
from tests.streams.made_images import encoded, pixels


def read(picture: Image.Image, form: str = "PNG", **options: Any) -> np.ndarray:
    decoded = decode(encoded(picture, form, **options), "here")
    assert decoded.mode == "RGB"
    return np.asarray(decoded)


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "TIFF"])
def test_pixels_survive_every_lossless_format(form: str) -> None:
    assert np.array_equal(read(pixels(), form), np.asarray(pixels()))


@pytest.mark.parametrize("form", ["JPEG", "MPO", "WEBP", "GIF"])
def test_lossy_formats_come_near(form: str) -> None:
    smooth = Image.linear_gradient("L").convert("RGB")
    assert np.abs(read(smooth, form).astype(int) - np.asarray(smooth)).max() < 12


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_fewer_channels_become_three(mode: str) -> None:
    picture = pixels().convert(mode)
    assert np.array_equal(read(picture), np.asarray(picture.convert("RGB")))


def test_four_inks_become_three_colours() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    found = read(red, "JPEG", quality=95)[8, 8].astype(int)
    assert np.abs(found - (200, 30, 40)).max() < 12


def test_sixteen_bits_keep_their_range() -> None:
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert read(Image.fromarray(deep))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_pixels_without_a_range_are_refused() -> None:
    floats = Image.fromarray(np.array([[0.5, 700.0]], dtype=np.float32))
    with pytest.raises(CorruptImageError, match="no agreed range"):
        read(floats, "TIFF")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white_paper(mode: str) -> None:
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    assert read(picture.convert(mode))[0, :, 0].tolist() == [255, 0]


def test_a_photo_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to the right
    assert read(pixels(size=(12, 10)), "JPEG", exif=exif).shape == (12, 10, 3)


def test_a_broken_note_on_rotation_spoils_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(pixels(), "JPEG", exif=exif)
    at = data.index(b"Exif\0\0") + 6
    broken = data[:at] + b"XX" + data[at + 2 :]
    assert decode(broken, "here").size == (12, 10)


def test_of_a_film_the_first_picture_is_taken() -> None:
    frames = [Image.new("L", (4, 4), grey) for grey in (10, 200)]
    data = read(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert data.max() == 10


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_picture_cut_short_is_corrupt_and_never_half_grey(form: str, share: float) -> None:
    data = encoded(pixels(size=(64, 64)), form)
    with pytest.raises(CorruptImageError) as caught:
        decode(data[: int(share * len(data))], "photos/cat.jpg")
    assert caught.value.place == "photos/cat.jpg" and "photos/cat.jpg" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "no image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),
        (b"P6\n40000 40000\n255\n" + b"\0" * 99, "that are safe"),
        (b"P6\n12000 12000\n255\n" + b"\0" * 99, "that are safe"),
    ],
)
def test_bytes_that_are_no_picture(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptImageError, match=reason):
        decode(data, "here")


def test_the_error_is_a_data_error_and_travels_between_processes() -> None:
    error = CorruptImageError("a/b.jpg", "it is empty")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert isinstance(again, DataError) and again.exit_code == 2
    assert (again.place, str(again)) == (error.place, str(error))
    assert "stream.corrupt=skip" in str(error)


SOUND = {form: encoded(pixels(size=(40, 40)), form) for form in ("JPEG", "PNG", "GIF", "TIFF")}


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(sorted(SOUND)), st.integers(0), st.binary(min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_damaged_bytes_decode_or_are_corrupt_and_nothing_else(
    form: str, place: int, damage: bytes
) -> None:
    data = bytearray(SOUND[form])
    place %= len(data)
    data[place : place + len(damage)] = damage
    with contextlib.suppress(CorruptImageError):
        assert decode(bytes(data), "here").mode == "RGB"
