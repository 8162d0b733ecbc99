"""Small classes of made-up vectors, and a quick spec of every kind of generator."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from raycl.config.generators import (
    DiffusionGenerator,
    GaussianGenerator,
    GeneratorSpec,
    GMMGenerator,
    MeanGenerator,
    RealVectors,
    SharedVAEGenerator,
    VAEGenerator,
)
from raycl.config.seeds import seed_for
from raycl.generators.vectors import ClassVectors

WIDTH = 12
SIZES = (40, 1, 17, 70, 65, 33, 5, 129)
"""With a batch of 16: lone last rows (1, 17, 33, 65, 129), short and long epochs."""

QUICK: tuple[GeneratorSpec, ...] = (
    MeanGenerator(),
    GaussianGenerator(),
    GaussianGenerator(covariance="full"),
    GMMGenerator(),
    RealVectors(),
    VAEGenerator(latent=6, hidden=24, epochs=12, batch=16, lr=2e-3),
    VAEGenerator(latent=6, hidden=24, epochs=12, batch=16, lr=2e-3, output_noise="residual"),
    DiffusionGenerator(hidden=16, layers=2, noise_steps=8, steps=50, batch=16),
    SharedVAEGenerator(latent=6, hidden=24, class_width=4, epochs=12, batch=16, lr=2e-3),
)
PER_CLASS = tuple(spec for spec in QUICK if spec.kind != "shared_vae")


def name_of(spec: GeneratorSpec) -> str:
    """A short name for a test."""
    extra = (getattr(spec, "covariance", ""), getattr(spec, "output_noise", ""))
    return "-".join([spec.kind, *(e for e in extra if e)])


def made_class(
    c: int, n: int, width: int = WIDTH, dtype: torch.dtype = torch.float32
) -> ClassVectors:
    """Correlated vectors off the origin, each dimension with a spread of its own."""
    random = torch.Generator().manual_seed(100 + c)
    mix = torch.randn(width, width, generator=random) / width**0.5
    centre = 3 * torch.randn(width, generator=random)
    scale = torch.linspace(0.2, 2.0, width)
    x = (torch.randn(n, width, generator=random) @ mix + centre) * scale
    return ClassVectors(f"class {c}", x.to(dtype), seed_for(0, "generator", c))


def made_classes(sizes: tuple[int, ...] = SIZES, width: int = WIDTH) -> list[ClassVectors]:
    return [made_class(c, n, width) for c, n in enumerate(sizes)]


def many_classes(count: int, rows: int, width: int) -> Iterator[ClassVectors]:
    """As many classes as asked for, made one at a time."""
    return (made_class(c, rows, width) for c in range(count))


def streams(count: int) -> list[int]:
    return [seed_for(1, "replay", c) for c in range(count)]
