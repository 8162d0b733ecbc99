"""Search spaces by the names that a user writes: shipped ones, or files."""

from __future__ import annotations

from pathlib import Path

from raycl import shipped
from raycl.config import space_files
from raycl.config.space import Space

FOLDER = "search_spaces"


def find_space(name: str) -> Space:
    """The checked space of a shipped name or of a file."""
    return space_files.read_space(shipped.find(name, FOLDER))


def shipped_spaces() -> dict[str, Path]:
    """Every shipped space by its name."""
    return shipped.files(FOLDER)
