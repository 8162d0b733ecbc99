"""Running statistics of classes that arrive once: counts, means, a shared scatter.

All in float64 and per class from one task's samples, so the result does not depend on
the order or the grouping in which classes arrive, up to rounding of the shared sum.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raycl.methods.parts.keys import unit

LEAST_SHRINKAGE = 1e-6


class ClassMeans:
    """Mean of the unit vectors of each class; a class without a sample has count 0."""

    def __init__(self, classes: int, width: int, device: torch.device) -> None:
        self.mean = torch.zeros(classes, width, dtype=torch.float64, device=device)
        self.count = torch.zeros(classes, dtype=torch.float64, device=device)

    def learn(self, x: Tensor, y: Tensor, classes: tuple[int, ...]) -> None:
        """Take the classes' means from these samples, replacing what was known of them."""
        x = unit(x.to(self.mean))
        for c in classes:
            rows = x[y == c]
            self.count[c] = len(rows)
            self.mean[c] = rows.mean(dim=0) if len(rows) else 0.0

    def state(self, classes: Tensor) -> dict[str, Tensor]:
        """What is known of these classes."""
        return {"mean": self.mean[classes], "count": self.count[classes]}

    def restore(self, classes: Tensor, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave for the same classes."""
        self.mean[classes] = state["mean"].to(self.mean)
        self.count[classes] = state["count"].to(self.count)

    def centred(self, x: Tensor, y: Tensor) -> Tensor:
        """Unit vectors minus the mean of their class."""
        return unit(x.to(self.mean)) - self.mean[y]

    def keys(self, classes: Tensor) -> Tensor:
        """Unit float32 directions of the means; zero for a class without a sample."""
        return unit(self.mean[classes]).float()

    def empty(self, classes: Tensor) -> Tensor:
        """Which of the classes have no sample, and so no mean."""
        return self.count[classes] == 0


def shrunk_precision(scatter: Tensor, count: float, shrinkage: float) -> Tensor:
    """Inverse of (1 - s) Σ + s (tr Σ / d) I for Σ = scatter / count."""
    covariance = scatter / max(count, 1.0)
    eye = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    variance = covariance.diagonal().mean()
    if variance == 0:  # one sample per class: nothing is known of the spread
        return eye
    # Fewer samples than dimensions and no shrinkage would leave Σ singular.
    shrinkage = max(shrinkage, LEAST_SHRINKAGE)
    precision: Tensor = torch.linalg.inv((1 - shrinkage) * covariance + shrinkage * variance * eye)
    return precision
