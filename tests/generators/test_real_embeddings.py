"""Generators of real CLIP embeddings stand for the vectors that they were fitted to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from raycl.config.generators import (
    GaussianGenerator,
    GeneratorSpec,
    GMMGenerator,
    MeanGenerator,
    RealVectors,
    SharedVAEGenerator,
    VAEGenerator,
)
from raycl.config.seeds import seed_for
from raycl.generators.build import fit
from raycl.generators.vectors import ClassVectors

CARS = Path(os.environ.get("RAYCL_DATA", "")) / "clip_vitb32" / "stanford_cars.npz"
CLASSES = 40
RIDGE = 0.1

pytestmark = pytest.mark.skipif(not CARS.exists(), reason="the real embedding sets are not here")


def load() -> tuple[list[ClassVectors], torch.Tensor, torch.Tensor]:
    with np.load(CARS, allow_pickle=False) as file:
        x, y, test_x, test_y = (file[k] for k in ("train_x", "train_y", "test_x", "test_y"))
    data = [
        ClassVectors(f"car {c}", torch.from_numpy(x[y == c]), seed_for(0, "generator", c))
        for c in range(CLASSES)
    ]
    rows = test_y < CLASSES
    return data, torch.from_numpy(test_x[rows]).double(), torch.from_numpy(test_y[rows]).long()


def accuracy_of_lda(x: torch.Tensor, test_x: torch.Tensor, test_y: torch.Tensor) -> float:
    """Shared-covariance LDA on (classes, n, d) vectors, percent on the test vectors."""
    x = torch.nn.functional.normalize(x.double(), dim=2)
    mean = x.mean(dim=1)
    centred = (x - mean[:, None]).flatten(0, 1)
    covariance = centred.T @ centred / len(centred) + 1e-9 * torch.eye(x.shape[2])
    level = RIDGE * covariance.diagonal().mean()
    covariance = (1 - RIDGE) * covariance + level * torch.eye(x.shape[2])
    weight = torch.linalg.solve(covariance, mean.T).T
    scores = test_x @ weight.T - 0.5 * (weight * mean).sum(dim=1)
    return 100 * float((scores.argmax(dim=1) == test_y).double().mean())


@pytest.mark.parametrize(
    ("spec", "above_mean"),
    [
        (GaussianGenerator(), 1.0),
        (GaussianGenerator(covariance="full"), 4.0),
        (GMMGenerator(), 4.0),
        (RealVectors(), 4.0),
        (VAEGenerator(epochs=20), -0.5),
        (SharedVAEGenerator(epochs=20), 2.0),
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
def test_a_classifier_of_samples_knows_real_vectors(spec: GeneratorSpec, above_mean: float) -> None:
    """What the spread of samples adds to their means; a VAE of 20 epochs may add nothing."""
    data, test_x, test_y = load()
    who = [seed_for(0, "replay", c) for c in range(CLASSES)]
    of_means = accuracy_of_lda(fit(MeanGenerator(), data).sample(128, who), test_x, test_y)
    assert (
        accuracy_of_lda(fit(spec, data).sample(128, who), test_x, test_y) >= of_means + above_mean
    )
