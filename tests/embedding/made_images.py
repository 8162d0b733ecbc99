"""Small folders of images, for tests that embed them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from raycl.config.seeds import rng

CLASSES = ("cat", "dog")


def save_folder(root: Path, *, train: int = 6, test: int = 3, suffix: str = "jpg") -> Path:
    """ROOT/{train,test}/{cat,dog}/000.jpg …: noise of a mean that tells the class."""
    for split, count in (("train", train), ("test", test)):
        for c, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng(0, "made images", split, c, i).normal(90 + 70 * c, 40, (40, 36, 3))
                pixels = np.clip(noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:03}.{suffix}")
    return root


def damage(file: Path) -> Path:
    """Cut a file short in the middle of its pixels."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def stored_digests(store: Path, kind: str = "features") -> list[str]:
    """The checksums of all payloads of a kind, sorted."""
    from raycl.store.store import Store

    records = Store.open(str(store)).records(kind)
    return sorted(p.sha256 for record in records for p in record.payloads.values())
