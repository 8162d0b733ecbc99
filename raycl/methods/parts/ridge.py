"""Ridge regression of one-hot labels over classes that arrive in turn, in closed form.

    primal  w = (Φᵀ Φ + λ I)⁻¹ Φᵀ Y     from the sums Φᵀ Φ and Φᵀ Y: no sample is kept
    dual    α = (K + λ I)⁻¹ Y           over every sample, K a kernel between them

Guarantees: sums are of float64, so that whatever the order and the cut into tasks the result is
that of all samples at once, to rounding; a state's tensors of one task never change again, but
for the one matrix Φᵀ Φ, of which the lower triangle is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy

import torch
from torch import Tensor

from raycl.errors import ConfigError, DataError
from raycl.methods.parts.keys import positions, unit
from raycl.methods.parts.random_features import RandomFeatures

ROWS = 2048
"""Samples whose features are made at once."""
MOST_TO_CHOOSE = 4096
"""Samples by which a ridge is chosen: of more, every second, third, …"""

Predict = Callable[[Tensor], Tensor]
"""From vectors to (n, classes) regressed labels, float32."""


class Regression(ABC):
    """What is kept of the samples so far, and the regression that follows from it."""

    def __init__(self) -> None:
        self.classes: tuple[tuple[int, ...], ...] = ()
        """Of each task."""

    @abstractmethod
    def added(self, x: Tensor, y: Tensor, classes: tuple[int, ...]) -> Regression:
        """With the samples of one more task; this one stays as it is."""

    @abstractmethod
    def solve(self, ridge: float) -> Predict:
        """Columns are the classes in order of arrival."""

    @abstractmethod
    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """(len(a), len(b)) products that the regression stands on, float64."""

    @property
    @abstractmethod
    def empty(self) -> Tensor:
        """Which classes have no sample, in order of arrival."""

    @abstractmethod
    def task_state(self, task: int) -> dict[str, Tensor]:
        """What the samples of one task left, by name."""

    @abstractmethod
    def put_back(self, state: Mapping[str, Tensor], task: int) -> None:
        """Take back one more task's."""

    def state(self) -> dict[str, Tensor]:
        """All that is kept."""
        out: dict[str, Tensor] = {}
        for task, classes in enumerate(self.classes):
            own = {"classes": torch.tensor(classes), **self.task_state(task)}
            out |= {f"{name}.{task}": tensor for name, tensor in own.items()}
        return out

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave, into a regression without a sample."""
        while (name := f"classes.{len(self.classes)}") in state:
            self.put_back(state, len(self.classes))
            self.classes += (tuple(state[name].tolist()),)


class Primal(Regression):
    """Keeps Φᵀ Φ (M, M) and one sum of features per class."""

    def __init__(self, features: RandomFeatures) -> None:
        super().__init__()
        self.features = features
        m, device = features.hidden, features.weight.device
        self.gram = torch.zeros(m, m, dtype=torch.float64, device=device)
        self.sums: tuple[Tensor, ...] = ()

    def added(self, x: Tensor, y: Tensor, classes: tuple[int, ...]) -> Primal:
        more = copy(self)
        more.gram = self.gram.clone()
        sums = self.gram.new_zeros(len(classes), self.features.hidden)
        row = _rows_of(y, classes).to(sums.device)
        for part, rows in zip(torch.split(x, ROWS), torch.split(row, ROWS), strict=True):
            features = self.features(part.to(self.gram))
            more.gram.addmm_(features.T, features)
            sums.index_add_(0, rows, features)
        more.sums, more.classes = (*self.sums, sums), (*self.classes, classes)
        return more

    def solve(self, ridge: float) -> Predict:
        root = _root(self.gram, ridge)
        weight = torch.cholesky_solve(torch.cat(self.sums).T, root).T.float()
        return lambda x: self.features(x) @ weight.T

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return self.features(a.to(self.gram)) @ self.features(b.to(self.gram)).T

    @property
    def empty(self) -> Tensor:
        return torch.cat([(sums == 0).all(dim=1) for sums in self.sums])

    def task_state(self, task: int) -> dict[str, Tensor]:
        return {"sums": self.sums[task]}

    def put_back(self, state: Mapping[str, Tensor], task: int) -> None:
        self.sums = (*self.sums, state[f"sums.{task}"].to(self.gram))

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "gram": lower_triangle(self.gram)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.gram = symmetric(state["gram"].to(self.gram), self.features.hidden)


class Dual(Regression):
    """Keeps every vector, scaled to length one; K is a Gaussian kernel."""

    def __init__(self, gamma: float, most_samples: int, width: int, device: torch.device) -> None:
        super().__init__()
        self.gamma, self.most_samples = gamma, most_samples
        self.x: tuple[Tensor, ...] = ()
        self.y: tuple[Tensor, ...] = ()
        self.none = torch.zeros(0, width, device=device)

    def added(self, x: Tensor, y: Tensor, classes: tuple[int, ...]) -> Dual:
        more = copy(self)
        more.x, more.y = (*self.x, unit(x.to(self.none))), (*self.y, y.cpu())
        more.classes = (*self.classes, classes)
        n = sum(len(part) for part in more.x)
        if n > self.most_samples:
            raise DataError(
                "the dual form solves for every sample at once, and these are too many",
                got=f"{n} samples of at most {self.most_samples}: a kernel matrix of "
                f"{8 * n * n / 2**30:.1f} GiB",
                do="use method.form=primal, fewer stream.shots, or raise method.most_samples",
            )
        return more

    def solve(self, ridge: float) -> Predict:
        x = torch.cat([self.none, *self.x])
        order = tuple(c for classes in self.classes for c in classes)
        row = _rows_of(torch.cat(self.y), order).to(x.device)
        labels = torch.zeros(len(x), len(order), dtype=torch.float64, device=x.device)
        labels[torch.arange(len(x), device=x.device), row] = 1.0
        if not len(x):
            return lambda new: new.new_zeros(len(new), len(order))
        alpha = torch.cholesky_solve(labels, _root(self.kernel(x, x), ridge))
        # α is large and of both signs: float32 would lose its small sums.
        return lambda new: (self.kernel(new, x) @ alpha).float()

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = unit(a.to(self.none).double()), unit(b.to(self.none).double())
        return (2 * self.gamma * (a @ b.T - 1)).exp()

    @property
    def empty(self) -> Tensor:
        order = torch.tensor([c for classes in self.classes for c in classes])
        return ~torch.isin(order, torch.cat(self.y)).to(self.none.device)

    def task_state(self, task: int) -> dict[str, Tensor]:
        return {"x": self.x[task], "y": self.y[task]}

    def put_back(self, state: Mapping[str, Tensor], task: int) -> None:
        self.x = (*self.x, state[f"x.{task}"].to(self.none))
        self.y = (*self.y, state[f"y.{task}"].cpu())


def errors_of(
    regression: Regression,
    fit: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    classes: tuple[int, ...],
    ridges: Sequence[float],
) -> Tensor:
    """For each ridge the squared error on held-out samples of a regression on `fit` alone."""
    (x, y), (new_x, new_y) = fit, held_out
    step = -(-len(x) // MOST_TO_CHOOSE)
    x, y = x[::step], y[::step]
    kernel, across = regression.kernel(x, x), regression.kernel(new_x, x)
    eye = torch.eye(len(classes), dtype=torch.float64, device=kernel.device)
    labels, wanted = (eye[_rows_of(of, classes).to(eye.device)] for of in (y, new_y))
    found = [
        across @ torch.cholesky_solve(labels, _root(kernel, ridge)) - wanted for ridge in ridges
    ]
    return torch.stack([error.square().sum() for error in found]).cpu()


def _rows_of(y: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Which of these classes each label is."""
    return positions(classes, max(classes) + 1)[y.cpu()]


def _root(matrix: Tensor, ridge: float) -> Tensor:
    """L with L Lᵀ = matrix + ridge · I; reads the lower triangle only."""
    loaded = matrix.clone()
    loaded.diagonal().add_(ridge)
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(loaded)
    if failed:
        raise ConfigError(
            "the regression has no solution at this ridge: it is below rounding",
            got=f"method.ridge={ridge:g}",
            do="raise it",
        )
    return root


def lower_triangle(matrix: Tensor) -> Tensor:
    """The lower triangle by rows, half the bytes."""
    return torch.cat([row[: i + 1] for i, row in enumerate(matrix)])


def symmetric(triangle: Tensor, width: int) -> Tensor:
    """The matrix whose lower triangle this is."""
    out = triangle.new_zeros(width, width)
    for row, part in zip(out, torch.split(triangle, list(range(1, width + 1))), strict=True):
        row[: len(part)] = part
    return out + out.tril(-1).T
