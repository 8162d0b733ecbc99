"""What LADA keeps of a class's vectors: centres on the sphere, and a mixture of round Gaussians.

    centres     k-means of x / |x|, ten starts
    mixture     p(x) = Σ_k π_k N(x; μ_k, σ_k² I),  by expectation maximisation

Classes are work items of the pool, each with a random stream of its own: neither its neighbours
nor the number of workers moves its numbers. A class with fewer distinct vectors than centres or
components has as many as it has vectors. What is done survives a kill.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raycl.compute.pool import WorkerSpec
from raycl.config.seeds import seed_for
from raycl.generators.vectors import ClassVectors
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.label_memory import Centres

PACK = 4
"""Classes of a work item."""
ROUND = 16
"""Work items between two moments at which the stage may save itself."""
STARTS = 10
RIDGE = 1e-6
"""Added to each σ², as a part of the class's own."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prototypes:
    """The mixtures of some classes, as many places for each; weight zero: no component."""

    weight: Tensor
    """(classes, components)"""
    mean: Tensor
    """(classes, components, width)"""
    variance: Tensor
    """(classes, components)"""


@dataclass(frozen=True)
class _Class:
    """A work item's part: one class."""

    place: int
    seed: int
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class _Summary:
    """What a worker makes of it."""

    centres: Floats
    weight: Floats
    mean: Floats
    variance: Floats


class Summariser:
    """A worker: makes the summaries of one pack of classes after the other."""

    def __init__(self, centres: int, components: int) -> None:
        self.centres, self.components = centres, components

    def __call__(self, pack: Sequence[_Class]) -> list[tuple[int, _Summary]]:
        return [(c.place, self._summary(c)) for c in pack]

    def _summary(self, c: _Class) -> _Summary:
        vectors = np.array(c.vectors, np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        directions = vectors / np.where(lengths > 0, lengths, 1.0)
        return _Summary(
            _centres(directions, self.centres, c.seed), *_mixture(vectors, self.components, c.seed)
        )


def _distinct(x: Floats) -> Floats:
    first: dict[bytes, int] = {}
    for place, row in enumerate(x):
        first.setdefault(row.tobytes(), place)
    return x[list(first.values())]


def _centres(x: Floats, most: int, seed: int) -> Floats:
    """(k, width) centres of the rows, k the most or the number of distinct rows."""
    from sklearn.cluster import KMeans

    distinct = _distinct(x)
    if len(distinct) <= most:
        return distinct
    means = KMeans(most, n_init=STARTS, random_state=seed_for(seed, "centres") % 2**32)
    found: Floats = means.fit(x).cluster_centers_
    return found


def _mixture(x: Floats, most: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Weights, means and variances of at most so many components."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    whole = float(x.var(axis=0).mean())
    components = min(most, len(_distinct(x)))
    if components == 1:
        return np.ones(1), x.mean(axis=0)[None], np.full(1, whole)
    mixture = GaussianMixture(
        components,
        covariance_type="spherical",
        reg_covar=RIDGE * whole,
        random_state=seed_for(seed, "mixture") % 2**32,
    )
    with warnings.catch_warnings():
        # A mixture that still moves after a hundred rounds is as good as any.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(x)
    return mixture.weights_, mixture.means_, mixture.covariances_


def summarise(
    x: Tensor,
    y: Tensor,
    classes: tuple[int, ...],
    *,
    centres: int,
    components: int,
    setting: Setting,
    context: Context,
) -> tuple[Centres, Prototypes]:
    """Centres and mixtures of these classes, each of which has a sample."""
    tables = _Tables(len(classes), x.shape[1], centres, components)
    worker = WorkerSpec(Summariser, (centres, components))
    rounds = -(-len(classes) // (PACK * ROUND))
    stage = context.stage("summarise", rounds, "round")
    for step in stage.steps(tables.state, tables.restore):
        first = step * PACK * ROUND
        places = range(first, min(first + PACK * ROUND, len(classes)))
        packs = _packs(x, y, classes, places, setting)
        for done in context.pool.map_unordered(worker, packs):
            for place, summary in done.value:
                tables.put(place, summary)
    return tables.result(setting.device)


def _packs(
    x: Tensor, y: Tensor, classes: tuple[int, ...], places: range, setting: Setting
) -> Iterator[tuple[_Class, ...]]:
    for start in range(0, len(places), PACK):
        pack = []
        for place in places[start : start + PACK]:
            c = classes[place]
            seed = seed_for(setting.init_seed, "summary", c)
            vectors = x[torch.nonzero(y == c).flatten()].detach().cpu().float()
            checked = ClassVectors(setting.class_names[c], vectors, seed)
            pack.append(_Class(place, seed, checked.vectors.numpy()))
        yield tuple(pack)


class _Tables:
    """All summaries, filled class by class."""

    def __init__(self, classes: int, width: int, centres: int, components: int) -> None:
        self.tensors = {
            "sizes": torch.zeros(classes, dtype=torch.long),
            "centres": torch.zeros(classes, centres, width),
            "weight": torch.zeros(classes, components),
            "mean": torch.zeros(classes, components, width),
            "variance": torch.zeros(classes, components),
        }

    def put(self, place: int, summary: _Summary) -> None:
        self.tensors["sizes"][place] = len(summary.centres)
        found: dict[str, Any] = {
            "centres": summary.centres,
            "weight": summary.weight,
            "mean": summary.mean,
            "variance": summary.variance,
        }
        for name, values in found.items():
            self.tensors[name][place, : len(values)] = torch.from_numpy(values).float()

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.tensors = {name: state[name].clone() for name in self.tensors}

    def result(self, device: torch.device) -> tuple[Centres, Prototypes]:
        """Without the places that no class of the task uses."""
        t = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        most = int(self.tensors["sizes"].max())
        used = int((self.tensors["weight"] > 0).sum(dim=1).max())
        return (
            Centres(t["centres"][:, :most].contiguous(), t["sizes"]),
            Prototypes(
                t["weight"][:, :used].contiguous(),
                t["mean"][:, :used].contiguous(),
                t["variance"][:, :used].contiguous(),
            ),
        )
