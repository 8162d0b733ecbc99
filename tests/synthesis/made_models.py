"""A Stable Diffusion of random weights, made once, and what is asked of it."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from pathlib import Path
from typing import Any

from raycl.compute.local_pool import LocalPool
from raycl.config.synthesis import Synthesis
from raycl.store.store import Store
from raycl.synthesis.prompts import Prompt
from raycl.synthesis.synthesise import Images, synthesise


@functools.cache
def small_model() -> str:
    """Its folder."""
    from raycl.synthesis.random_models import write_random_pipeline

    folder = Path(tempfile.mkdtemp(prefix="raycl-small-sd-"))
    return str(write_random_pipeline(folder, "small"))


def small(**options: Any) -> Synthesis:
    return Synthesis(**{"model": small_model(), "steps": 2, "chunk": 4, **options})


def made_prompts(count: int) -> list[Prompt]:
    return [Prompt(f"a photo of a {i % 3}.", 1000 + i) for i in range(count)]


def made_images(place: Path, prompts: list[Prompt], spec: Synthesis, **options: Any) -> Images:
    """In this process, with a store that is opened anew."""
    given = {"store": Store.open(str(place)), "pool": LocalPool(), **options}
    return synthesise(prompts, spec, **given)


def digests(images: Images) -> list[str]:
    """Of each image, in order."""
    return [note["sha256"] for note in images.notes]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def record_bytes(place: Path) -> dict[str, bytes]:
    """Every chunk's record, which painting it again would replace."""
    return {
        str(file.parent): file.read_bytes()
        for file in (place / "artefacts/images").rglob("record.json")
    }
