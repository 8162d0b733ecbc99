"""Calibrators: what holds of the maps, what POT says of them, and which drift each recovers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from raycl.config.dmc import (
    CALIBRATORS,
    CalibratorSpec,
    MeanShift,
    MongeClasswise,
    MongePooled,
    MongeWithin,
    NoCalibration,
    RidgePaired,
    SemanticDrift,
)
from raycl.config.seeds import rng
from raycl.methods.parts.calibration import monge
from raycl.methods.parts.calibration.build import calibrate
from raycl.methods.parts.calibration.drift import RIDGE, Drift, Moved, covariance

WIDTH = 12
SPECS: list[CalibratorSpec] = [spec() for spec in CALIBRATORS]
by_kind = partial(pytest.mark.parametrize, "spec", ids=lambda spec: spec.kind)


@dataclass
class Statistics:
    """Old classes in memory."""

    means: Tensor
    covariances: Tensor

    def covariance(self, index: int) -> Tensor:
        return self.covariances[index]

    def moved(self, drift: Drift | None) -> Statistics:
        """Where a calibrator takes them."""
        if drift is None:
            return self
        covariances = self.covariances
        if drift.maps is not None:
            weights = torch.ones(len(self.means), 1) if drift.weights is None else drift.weights
            maps = torch.einsum("ck,kde->cde", weights.double(), drift.maps)
            covariances = maps @ covariances @ maps.transpose(1, 2)
        return Statistics(drift.means, covariances)


def normal(*shape: int, purpose: str = "calibration", number: int = 0) -> Tensor:
    return torch.from_numpy(rng(number, purpose).normal(size=shape))


def spread(number: int, width: int = WIDTH) -> Tensor:
    root = normal(width, 2 * width, purpose="spread", number=number)
    return root @ root.T / (2 * width) + 0.05 * torch.eye(width, dtype=torch.float64)


def psd(number: int, width: int = WIDTH, strength: float = 0.4) -> Tensor:
    root = normal(width, width, purpose="psd", number=number) / width**0.5
    return torch.eye(width, dtype=torch.float64) + strength * root @ root.T


def rotation(width: int = WIDTH) -> Tensor:
    skew = normal(width, width, purpose="rotation")
    return torch.matrix_exp((skew - skew.T) / width**0.5)


def old_classes(count: int = 5, width: int = WIDTH) -> Statistics:
    means = normal(count, width, purpose="old means")
    return Statistics(means, torch.stack([spread(10 + i, width) for i in range(count)]))


def current(map_: Tensor, shift: Tensor, *, classes: int = 4, each: int = 2000) -> Moved:
    """Classes of one spread, all moved alike."""
    width = len(map_)
    root = torch.linalg.cholesky(spread(0, width))
    y = torch.arange(classes).repeat_interleave(each)
    centres = normal(classes, width, purpose="centres")
    before = centres[y] + normal(len(y), width, purpose="noise") @ root.T
    return Moved.of(before, before @ map_.T + shift, y)


def test_the_map_carries_one_covariance_to_the_other() -> None:
    for number in range(5):
        before, after = spread(number), spread(number + 50)
        found = monge.transport_map(before, after)
        assert torch.allclose(found @ before @ found, after, atol=1e-10)
        assert torch.equal(found, found.T)
        assert float(torch.linalg.eigvalsh(found).min()) > 0


def test_equal_covariances_give_the_identity() -> None:
    found = monge.transport_map(spread(1), spread(1))
    assert torch.allclose(found, torch.eye(WIDTH, dtype=torch.float64), atol=1e-10)


def test_maps_distances_and_plans_are_pots() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ot = pytest.importorskip("ot")
    before, after = spread(1), spread(2)
    means = normal(2, WIDTH)
    theirs, _ = ot.gaussian.bures_wasserstein_mapping(
        means[0].numpy(), means[1].numpy(), before.numpy(), after.numpy()
    )
    assert np.allclose(monge.transport_map(before, after).numpy(), theirs, atol=1e-9)
    distance = ot.gaussian.bures_wasserstein_distance(
        means[0].numpy(), means[1].numpy(), before.numpy(), after.numpy()
    )
    ours = monge.squared_distance((means[0], means[1]), (before, after))
    assert ours == pytest.approx(float(distance) ** 2, rel=1e-9)
    cost = normal(7, 4).square()
    plan = ot.sinkhorn(np.full(7, 1 / 7), np.full(4, 1 / 4), cost.numpy(), 0.3, stopThr=1e-12)
    assert np.allclose(monge.sinkhorn(cost, 0.3).numpy(), plan, atol=1e-8)


@by_kind(SPECS)
def test_an_encoder_that_did_not_move_changes_nothing(spec: CalibratorSpec) -> None:
    old, eye = old_classes(), torch.eye(WIDTH, dtype=torch.float64)
    for each in (2000, 3, 1):
        found = old.moved(calibrate(spec, current(eye, torch.zeros(WIDTH), each=each), old))
        assert torch.allclose(found.means, old.means, atol=1e-8), each
        assert torch.allclose(found.covariances, old.covariances, atol=1e-7), each


@by_kind(SPECS)
def test_covariances_stay_symmetric_and_positive(spec: CalibratorSpec) -> None:
    old, shift = old_classes(), normal(WIDTH, purpose="shift")
    for map_, each in ((psd(3), 40), (rotation(), 40), (psd(3), 2)):
        found = old.moved(calibrate(spec, current(map_, shift, each=each), old))
        for matrix in found.covariances:
            assert torch.allclose(matrix, matrix.T, atol=1e-9)
            assert float(torch.linalg.eigvalsh(matrix).min()) > 0
        assert torch.isfinite(found.means).all()


@by_kind([MongeWithin(), MongePooled(), RidgePaired(strength=1e-6)])
def test_a_symmetric_positive_drift_is_recovered(spec: CalibratorSpec) -> None:
    map_, shift, old = psd(4), normal(WIDTH, purpose="shift"), old_classes()
    found = old.moved(calibrate(spec, current(map_, shift), old))
    truth = Statistics(old.means @ map_.T + shift, map_ @ old.covariances @ map_.T)
    for name in ("means", "covariances"):
        right, moved, still = (getattr(s, name) for s in (truth, found, old))
        assert float((moved - right).norm()) < 0.1 * float((still - right).norm()), name


def test_a_rotation_is_beyond_transport_and_not_beyond_pairs() -> None:
    map_, old = rotation(), old_classes()
    moved, truth = current(map_, torch.zeros(WIDTH)), old.means @ map_.T
    by_pairs = old.moved(calibrate(RidgePaired(strength=1e-6), moved, old)).means
    by_transport = old.moved(calibrate(MongeWithin(), moved, old)).means
    assert float((by_pairs - truth).norm()) < 1e-3
    assert float((by_transport - truth).norm()) > 1.0


def test_shifts_move_means_only() -> None:
    old, shift = old_classes(), normal(WIDTH, purpose="shift")
    moved = current(torch.eye(WIDTH, dtype=torch.float64), shift)
    for spec in (MeanShift(), SemanticDrift()):
        drift = calibrate(spec, moved, old)
        assert drift is not None and drift.maps is None
        assert torch.allclose(drift.means, old.means + shift, atol=1e-9)
    assert calibrate(NoCalibration(), moved, old) is None


def test_a_mean_follows_what_lies_near_it() -> None:
    before = torch.tensor([[0.0, 0.0], [10.0, 0.0]], dtype=torch.float64)
    after = before + torch.tensor([[0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    old = Statistics(torch.tensor([[0.1, 0.0], [9.0, 0.0]]).double(), torch.eye(2).repeat(2, 1, 1))
    found = calibrate(SemanticDrift(), Moved.of(before, after, torch.tensor([0, 1])), old)
    assert found is not None
    assert torch.allclose(found.means[:, 1], torch.tensor([1.0, -1.0], dtype=torch.float64))


def test_a_class_takes_the_map_of_the_class_it_resembles() -> None:
    maps, y = (psd(1), psd(2)), torch.arange(2).repeat_interleave(3000)
    centres = 8 * torch.eye(2, WIDTH, dtype=torch.float64)
    noise = normal(len(y), WIDTH, purpose="noise")
    before = centres[y] + noise
    after = torch.cat([before[y == k] @ maps[k].T for k in (0, 1)])
    old = Statistics(centres + 0.1, torch.eye(WIDTH).double().repeat(2, 1, 1))
    drift = calibrate(MongeClasswise(entropy=0.01), Moved.of(before, after, y), old)
    assert drift is not None and drift.weights is not None
    assert drift.weights.argmax(dim=1).tolist() == [0, 1]
    found = old.moved(drift)
    for k in (0, 1):
        truth = old.means[k] @ maps[k].T
        assert float((found.means[k] - truth).norm()) < 0.1 * float((old.means[k] - truth).norm())


def test_few_samples_are_shrunk_and_one_has_the_ridge_alone() -> None:
    x = normal(6, WIDTH)
    few = covariance(x)
    raw = (x - x.mean(dim=0)).T @ (x - x.mean(dim=0)) / 5
    assert float(few.trace()) == pytest.approx(float(raw.trace()) + RIDGE * WIDTH, rel=1e-9)
    off = few - few.diagonal().diag()
    assert float(off.norm()) < float((raw - raw.diagonal().diag()).norm())
    one = covariance(x[:1])
    assert torch.allclose(one, RIDGE * torch.eye(WIDTH, dtype=torch.float64))
    many = normal(5 * WIDTH, WIDTH)
    assert torch.allclose(covariance(many) - RIDGE * torch.eye(WIDTH), torch.cov(many.T), atol=1e-9)


STUDY_WIDTH, STUDY_OLD, STUDY_NEW = 64, 20, 8
SHARED = 4.0
"""Of a direction that all vectors share, as those of an image encoder do."""


def study(map_: Tensor, spec: CalibratorSpec, each: int) -> float:
    """Accuracy on old classes after drift, by LDA on the statistics in memory."""
    width = STUDY_WIDTH
    centres = SHARED / width**0.5 + 0.25 * normal(STUDY_OLD + STUDY_NEW, width, purpose="study")
    root = 0.3 * torch.linalg.cholesky(spread(7, width))
    y = torch.arange(STUDY_NEW).repeat_interleave(each)
    before = centres[STUDY_OLD + y] + normal(len(y), width, purpose="study noise") @ root.T
    moved = Moved.of(before, before @ map_.T, y)
    old = Statistics(centres[:STUDY_OLD], (root @ root.T).repeat(STUDY_OLD, 1, 1))
    found = old.moved(calibrate(spec, moved, old))
    labels = torch.arange(STUDY_OLD).repeat_interleave(20)
    test = centres[labels] + normal(len(labels), width, purpose="study test") @ root.T
    weights = torch.linalg.solve(found.covariances.mean(dim=0), found.means.T)
    scores = test @ map_.T @ weights - 0.5 * (found.means.T * weights).sum(dim=0)
    return float((scores.argmax(dim=1) == labels).double().mean())


def low_rank(strength: float) -> Tensor:
    """Symmetric and PSD, in four directions, the shared one partly in them."""
    basis, _ = torch.linalg.qr(0.5 + normal(STUDY_WIDTH, 4, purpose="low rank"))
    return torch.eye(STUDY_WIDTH, dtype=torch.float64) + strength * basis @ basis.T


def test_a_study_of_drift_without_an_encoder() -> None:
    """Some directions grow: nothing done loses old classes, carrying them along does not."""
    drift = low_rank(4.0)
    assert study(low_rank(0.0), NoCalibration(), 60) > 0.95
    assert study(drift, NoCalibration(), 60) < 0.5
    for spec in (MongeWithin(), MongePooled(), RidgePaired(strength=0.1)):
        assert study(drift, spec, 60) > 0.94, spec
    turned = rotation(STUDY_WIDTH)
    assert study(turned, RidgePaired(strength=0.1), 60) > 0.94  # a weak pull follows a whole turn
    assert study(turned, MongeWithin(), 60) < 0.6
