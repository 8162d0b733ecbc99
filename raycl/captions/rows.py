"""What a caption is, as kept: its words, the seed of what is made of it, and where it came from.

A caption's seed depends on the run's seed, its class and its source image alone, so neither the
order of classes nor what was dropped beside it changes what is synthesised from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raycl.config.seeds import seed_for

SEED_BYTES = 8
LABEL_BYTES = 4


@dataclass(frozen=True)
class Caption:
    """One caption of one image."""

    text: str
    seed: int
    source: int
    """The row of the image in its set."""
    score: float | None = None
    """The captioner's own: cosine to the image by CLIP, mean log-probability by BLIP."""

    @property
    def bytes(self) -> int:
        """What it takes to keep: its words, its seed and its label."""
        return len(self.text.encode()) + SEED_BYTES + LABEL_BYTES


def caption_seed(seed: int, class_name: str, source: int) -> int:
    """The seed of what is made from the caption of an image."""
    return seed_for(seed, "caption", class_name, source)


def distinct(captions: Sequence[Caption]) -> list[Caption]:
    """The first of each wording."""
    first: dict[str, Caption] = {}
    for caption in captions:
        first.setdefault(caption.text, caption)
    return list(first.values())
