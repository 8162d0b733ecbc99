"""The drawn pictures that tiny-SD learns from, each with one caption.

They are tiny-CLIP's corpus: no handwriting, no font and no pair of nested shapes that a stream
shows. A caption says some of what is true of a picture. Now and then it says it twice, or adds
words that mean nothing here, so that longer prompts with words of their own do no harm.

Chunk i is drawn from a random stream named i, so any number of processes draws the same.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from raycl.backbones.tiny.corpus import Truth, describe, draw_scene
from raycl.config.seeds import rng
from raycl.whole_files import whole_file

CAPTIONS_REVISION = 1
"""Raised when what is said of a picture changes."""
CHUNK = 500
TWICE, IDLE = 0.25, 0.12
"""How often a caption says it twice, and how often it has idle words."""
IDLE_WORDS = (
    "thick", "thin", "large", "small", "slanted", "upright", "bold", "light", "narrow", "wide",
    "round", "neat", "bright", "dark", "blurred", "sharp", "curved", "straight", "tall", "short",
    "handwritten", "printed", "stroke", "lines", "simple",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures (n, 32, 32, 3) uint8 and what is said of each."""

    pixels: Tensor
    captions: list[str]


def caption(truth: Truth, generator: np.random.Generator) -> str:
    """Something true of a picture, perhaps with words beside it."""
    text = describe(truth, generator).text
    if generator.random() < TWICE:
        text = f"{text.rstrip('.')}, {describe(truth, generator).text}"
    if generator.random() < IDLE:
        count = int(generator.integers(1, 4))
        words = [IDLE_WORDS[i] for i in generator.integers(len(IDLE_WORDS), size=count)]
        text = f"{text.rstrip('.')}, {' '.join(words)}"
    return text


def draw_chunk(seed: int, number: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Chunk `number`, of so many pictures, whoever draws it."""
    generator = rng(seed, "tiny-sd-corpus", number)
    scenes = [draw_scene(generator) for _ in range(size)]
    said = [caption(scene.truth, generator) for scene in scenes]
    return np.stack([scene.picture for scene in scenes]), said


def drawn(
    seed: int, count: int, drawers: int, tell: Callable[[int], None], stopping: Callable[[], bool]
) -> Pictures | None:
    """`count` pictures, drawn by this process or by others; None if it was stopped."""
    pixels: list[Tensor] = []
    captions: list[str] = []
    for chunk, said in _chunks(seed, count, drawers):
        pixels.append(torch.from_numpy(chunk))
        captions += said
        tell(len(captions))
        if stopping():
            return None
    return Pictures(torch.cat(pixels), captions)


def _chunks(seed: int, count: int, drawers: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    sizes = [min(CHUNK, count - first) for first in range(0, count, CHUNK)]
    if drawers == 0:
        yield from (draw_chunk(seed, i, size) for i, size in enumerate(sizes))
        return
    # Spawned, since a fork of a process with torch's threads may hang.
    with ProcessPoolExecutor(drawers, get_context("spawn")) as pool:
        waiting: deque[Future[tuple[np.ndarray, list[str]]]] = deque()
        for i, size in enumerate(sizes):
            waiting.append(pool.submit(draw_chunk, seed, i, size))
            if len(waiting) > 2 * drawers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def save(pictures: Pictures, path: Path) -> None:
    """A whole file or none."""
    with whole_file(path) as aside:
        save_file({"pixels": pictures.pixels}, aside, {"captions": json.dumps(pictures.captions)})


def load(path: Path) -> Pictures:
    """What `save` wrote."""
    with safe_open(path, "pt") as file:
        return Pictures(file.get_tensor("pixels"), json.loads(file.metadata()["captions"]))
