"""The vectors of one class, checked, and how they are standardised.

Guarantees: finite float vectors of one width, at least one; a dimension that does not vary
has scale zero, is divided by one, and comes back as the constant that it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.errors import DataError

FLAT = 1e-6
"""A standard deviation below this share of the mean is rounding, not spread."""


@dataclass(frozen=True, eq=False)
class ClassVectors:
    """One class: its name, its vectors (n, d), and the seed of all that is random in its fit.

    The seed is the class's own, e.g. seed_for(seed, "generator", source class id), so that
    neither its neighbours nor the order of classes move its numbers.
    """

    name: str
    vectors: Tensor
    stream: int

    def __post_init__(self) -> None:
        x = self.vectors
        if x.ndim != 2 or not x.is_floating_point() or 0 in x.shape:
            raise DataError(
                f"class {self.name!r}: expected float vectors, one per row, at least one",
                got=f"{tuple(x.shape)} of {x.dtype}",
                do="leave out classes without a sample",
            )
        bad = (~torch.isfinite(x).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise DataError(
                f"class {self.name!r}: {len(bad)} vectors hold NaN or infinity",
                got=f"rows {', '.join(str(row) for row in bad[:5])}",
                do="embed those samples again or leave them out",
            )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])


def check_widths(data: Sequence[ClassVectors]) -> None:
    """At least one class, and vectors of one width."""
    if not data:
        raise DataError("there is no class to fit", do="give at least one")
    widths = {c.width: c.name for c in data}
    if len(widths) > 1:
        raise DataError(
            "classes that are fitted together must share one vector width",
            got=", ".join(f"{name!r}: {width}" for width, name in widths.items()),
            do="embed them with one backbone",
        )


@dataclass(frozen=True, eq=False)
class Standardised:
    """A class's vectors with mean 0 and deviation 1 per dimension, and the way back."""

    x: Tensor
    """Float64, on the CPU."""
    mean: Tensor
    std: Tensor
    """Unbiased; zero where the class does not vary, as with a single sample."""


def standardise(vectors: Tensor) -> Standardised:
    """In float64, because a sum over many rows of half precision would lose the spread."""
    x = vectors.detach().cpu().double()
    mean = x.mean(dim=0)
    centred = x - mean
    std = (centred.square().sum(dim=0) / max(len(x) - 1, 1)).sqrt()
    std = std.masked_fill(std <= FLAT * mean.abs(), 0.0)
    return Standardised(centred / divisor(std) * (std > 0), mean, std)


def divisor(std: Tensor) -> Tensor:
    """The scale, with one where it is zero."""
    return std.masked_fill(std == 0, 1.0)
