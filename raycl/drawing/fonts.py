"""Which fonts exist for drawing, and which of them pre-training never sees.

They are the free fonts that travel with matplotlib, so every machine draws the same ones.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from raycl.errors import DataError

DRAWING_REVISION = 1
"""Raised when any picture of this room changes. Here, where nothing heavy is imported."""

PRETRAINING_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "cmr10.ttf",
    "cmb10.ttf",
    "cmss10.ttf",
    "cmtt10.ttf",
    "cmti10.ttf",
)
HELD_OUT_FONTS = (
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSerif-BoldItalic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
    "STIXGeneralBolIta.ttf",
)
"""Only streams draw with these."""


def font_file(name: str) -> Path:
    """Where a font lies, found without importing matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise DataError("matplotlib, whose fonts are drawn, is not installed")
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name
    if not path.is_file():
        raise DataError("matplotlib lacks a font that is drawn", got=name)
    return path
