"""Random draws that belong to one class and one purpose, whoever is its neighbour.

Draws are made on the CPU, so they are the same on every device. What is sampled is drawn in
blocks of a fixed number of rows, each from a seed of its own: so the first n rows of a longer
draw are the shorter draw, and a draw may be cut into pieces and made in several places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raycl.config.seeds import seed_for

BLOCK = 64
"""Rows of a block of samples. Products of matrices may round differently for other shapes,
so a part of a block is computed as a whole block and cut."""


def generator(stream: int, purpose: str, *ids: int) -> torch.Generator:
    """A random generator for one purpose of one class."""
    return torch.Generator().manual_seed(seed_for(stream, purpose, *ids))


def normals(stream: int, purpose: str, *ids: int, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, float32."""
    return torch.empty(*shape).normal_(generator=generator(stream, purpose, *ids))


def uniforms(stream: int, purpose: str, *ids: int, shape: Sequence[int]) -> Tensor:
    """Numbers from [0, 1), float32."""
    return torch.empty(*shape).uniform_(generator=generator(stream, purpose, *ids))
