"""From the bytes of an image file to RGB pixels, or an error that names the image.

Guarantees: only common still-picture formats are opened; a picture that is cut short,
empty, absurdly large or of pixels without a range is refused, never half-read. Reading
the bytes is the caller's: a fault of the file system is not a corrupt image.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from raycl.errors import DataError

Image.init()  # once, and before any thread decodes: it is not made for two at a time
FORMATS = tuple(
    form for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF") if form in Image.OPEN
)
"""Pillow knows many more, some of which start other programs."""


class CorruptImageError(DataError):
    """One image that cannot be decoded; `place` says which."""

    def __init__(self, place: str, reason: str = "its bytes are no image") -> None:
        super().__init__(
            f"a corrupt image: {reason}",
            got=place,
            do="repair or remove it, or leave corrupt images out with stream.corrupt=skip",
        )
        self.place = place


def decode(data: bytes, place: str) -> Image.Image:
    """The upright RGB picture in these bytes."""
    if not data:
        raise CorruptImageError(place, "it is empty")
    try:
        return _decoded(data)
    except MemoryError:
        raise
    # From memory, whatever a decoder raises is the picture's fault, and they raise anything.
    except Exception as error:
        raise CorruptImageError(place, _reason(error)) from error


def _decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        _refuse_bomb(picture)
        picture.load()
        with contextlib.suppress(Exception):  # a broken note on rotation spoils no pixel
            ImageOps.exif_transpose(picture, in_place=True)
        return _rgb(picture)


def _refuse_bomb(picture: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise ValueError(
            f"{picture.width}×{picture.height} pixels are more than the {limit:,} that are safe"
        )


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        wide = np.asarray(picture, dtype=np.uint16)
        return Image.fromarray((wide // 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no agreed range; convert it to 8 or 16 bits")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        paper = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(paper, seen).convert("RGB")
    # A copy where it is RGB already: the original ends with its file.
    return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its bytes are no image of a known format"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more pixels than the {Image.MAX_IMAGE_PIXELS or 0:,} that are safe"
    return str(error) or type(error).__name__
