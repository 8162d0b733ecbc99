"""Pictures that lie in files of their own, below one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from raycl.streams.decoding import decode


@dataclass(frozen=True)
class FilePictures:
    """The files by row."""

    root: Path
    relative: tuple[str, ...]

    def place(self, row: int) -> str:
        return str(self.root / self.relative[row])

    def image(self, row: int) -> Image.Image:
        # Read apart from decoding: a fault of the file system is no corrupt image.
        return decode((self.root / self.relative[row]).read_bytes(), self.place(row))
