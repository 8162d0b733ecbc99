"""FeCAM and Tip-Adapter: their formulas, the joint solution whatever the order, their options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from raycl.config.methods import NCM, SLDA
from raycl.config.rivals import FeCAM, TipAdapter
from raycl.errors import DataError
from raycl.methods import conformance
from raycl.methods.build import build_method
from raycl.methods.fecam import FeCAMMethod
from raycl.methods.method import Setting
from raycl.methods.parts.choosing import middle_of_best
from raycl.methods.parts.keys import FLOOR, unit
from raycl.methods.tip_adapter import ALPHAS, BETAS, TipAdapterMethod
from raycl.streams.stream import Task
from tests.methods.made_tasks import (
    CARS,
    CLASSES,
    WIDTH,
    accuracy,
    cars,
    learn,
    made_setting,
    made_tasks,
    without,
)

CUTS = (((0, 1, 2, 3, 4, 5),), ((5, 3), (0,), (4, 1, 2)))


@pytest.mark.parametrize(
    "spec",
    [
        FeCAM(unseen="gate"),
        FeCAM(normalise=False, shrinkage=0.1),
        TipAdapter(unseen="none"),
        TipAdapter(alpha=1.0, beta=2.0, per_class=2),
        TipAdapter(train="current", epochs=2, batch=4),
        TipAdapter(train="all", epochs=2, per_class=3),
    ],
    ids=repr,
)
def test_they_hold_the_contract(spec: Any) -> None:
    findings = conformance.check_method(lambda setting: build_method(spec, setting))
    assert {f.what: f.fault for f in findings if not f.ok} == {}


def test_text_beside_discriminants_is_a_prior() -> None:
    setting = made_setting()
    x = vectors_of(made_tasks(setting, CUTS[0]))
    methods = [build_method(SLDA(text=a), setting) for a in (0.0, 0.5)]
    alone, beside = (learn(m, made_tasks(setting, CUTS[1])).seen_scores(x) for m in methods)
    text = setting.zero_shot(x)[:, torch.tensor(methods[0].seen)]
    assert torch.allclose(beside - alone, 0.5 * text, atol=1e-3)


def vectors_of(tasks: list[Task]) -> Tensor:
    return torch.cat([task.test.x for task in tasks])


@pytest.mark.parametrize(
    "spec", [FeCAM(), FeCAM(normalise=False), TipAdapter(alpha=1.0, beta=2.0)], ids=repr
)
def test_the_result_is_that_of_all_samples_at_once(spec: Any) -> None:
    setting = made_setting()
    x = vectors_of(made_tasks(setting, CUTS[0]))
    joint = learn(build_method(spec, setting), made_tasks(setting, CUTS[0])).seen_scores(x)
    method = learn(build_method(spec, setting), made_tasks(setting, CUTS[1]))
    found = method.seen_scores(x)[:, torch.tensor(method.seen).argsort()]
    assert torch.allclose(found, joint, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("train", [4, 40], ids=lambda n: f"{n} samples of {WIDTH} dimensions")
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("shrinkage", [0.1, 1.0, 100.0])
def test_distances_are_those_of_the_dense_matrix(
    train: int, normalise: bool, shrinkage: float
) -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUTS[1], train=train)
    spec = FeCAM(normalise=normalise, shrinkage=shrinkage)
    method = learn(build_method(spec, setting), tasks)
    x = unit(vectors_of(tasks)).double()
    for column, c in enumerate(method.seen):
        own = torch.cat([unit(t.train.x[t.train.y == c].double()) for t in tasks])
        covariance = torch.cov(own.T)
        load = shrinkage * covariance.diagonal().mean()
        covariance = covariance + load * torch.eye(WIDTH, dtype=torch.float64)
        if normalise:
            deviation = covariance.diagonal().sqrt()
            covariance = covariance / deviation / deviation[:, None]
        z = x - own.mean(dim=0)
        expected = (z @ torch.linalg.inv(covariance) * z).sum(dim=1)
        found = -method.seen_scores(x.float())[:, column].double()
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_class_of_one_sample_has_the_plain_distance_and_one_of_none_has_no_score() -> None:
    setting = made_setting()
    (task,) = made_tasks(setting, CUTS[0], train=1)
    method = learn(build_method(FeCAM(), setting), [without(task, 3)])
    x = unit(task.test.x)
    scores = method.seen_scores(x)
    expected = -(x - unit(task.train.x[task.train.y == 0])).square().sum(dim=1)
    assert torch.allclose(scores[:, 0], expected, atol=1e-5)
    assert (scores[:, 3] == FLOOR).all()


def test_fecam_keeps_no_more_than_the_samples_or_the_matrix() -> None:
    setting = made_setting()
    for train, rows in ((4, 4), (40, WIDTH)):
        method = learn(build_method(FeCAM(), setting), made_tasks(setting, CUTS[1], train=train))
        assert isinstance(method, FeCAMMethod)
        assert {len(root) for roots in method.roots for root in roots} == {rows}


def test_fecam_uses_what_means_do_not_know() -> None:
    """Two classes of one mean: only the directions in which they vary tell them apart."""
    setting = made_setting()
    (task,) = made_tasks(setting, [(0, 1)], train=60)
    generator = torch.Generator().manual_seed(0)
    centre = torch.zeros(WIDTH)
    centre[0] = 1.0

    def spread(y: Tensor) -> Tensor:
        wide = torch.zeros(len(y), WIDTH)
        wide[:, 1:8] = 0.3 * (y == 0)[:, None]
        wide[:, 8:15] = 0.3 * (y == 1)[:, None]
        return centre + (0.01 + wide) * torch.randn(len(y), WIDTH, generator=generator)

    task = replace(
        task,
        train=replace(task.train, x=spread(task.train.y)),
        test=replace(task.test, x=spread(task.test.y)),
    )
    spec = FeCAM(shrinkage=0.1, normalise=False)
    assert accuracy(learn(build_method(spec, setting), [task]), [task]) > 0.95
    assert accuracy(learn(build_method(NCM(), setting), [task]), [task]) < 0.75


def test_the_grouped_sum_is_the_one_hot_product(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUTS[1])
    method = learn(build_method(TipAdapter(alpha=1.5, beta=3.0), setting), tasks)
    x = vectors_of(tasks)
    keys = unit(torch.cat([task.train.x for task in tasks]))
    y = torch.cat([task.train.y for task in tasks])
    hot = torch.nn.functional.one_hot(y, CLASSES).float()[:, list(method.seen)]
    affinity = (-3.0 * (1 - unit(x) @ keys.T)).exp()
    expected = setting.zero_shot(x)[:, list(method.seen)] + 1.5 * affinity @ hot
    assert torch.allclose(method.seen_scores(x), expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("raycl.methods.tip_adapter.CELLS", 100)  # a row at a time
    assert torch.allclose(method.seen_scores(x), expected, rtol=1e-4, atol=1e-4)


def test_the_cache_is_weighed_as_held_out_samples_want_it() -> None:
    def alpha(setting: Setting) -> float:
        tasks = made_tasks(setting, CUTS[1], noise=1.0)
        method = learn(build_method(TipAdapter(), setting), tasks)
        assert isinstance(method, TipAdapterMethod)
        assert method.alpha_beta[0] in ALPHAS and method.alpha_beta[1] in BETAS
        return method.alpha_beta[0]

    right = replace(made_setting(noise=0.0), logit_scale=5.0)  # at 100 no cache turns an answer
    assert alpha(right) < alpha(replace(right, text=right.text.roll(1, dims=0)))


def test_candidates_are_judged_without_any_held_out_sample() -> None:
    """Sums grow with samples: beside classes that have theirs back, the task's look small."""
    setting = made_setting()
    tasks = made_tasks(setting, CUTS[1])
    method = learn(build_method(TipAdapter(), setting), tasks[:2])
    assert isinstance(method, TipAdapterMethod)
    assert [int(fit.sum()) for fit in method.fit] == [2 * 9, 9]
    assert [len(fit) for fit in method.fit] == [2 * 12, 12]
    spoilt = build_method(TipAdapter(), setting)
    assert isinstance(spoilt, TipAdapterMethod)
    spoilt.seen = method.seen
    spoilt.restore(method.state())
    held = [~fit for fit in spoilt.fit]
    spoilt.x = tuple(
        torch.where(out[:, None], torch.full_like(x, 9.0), x)
        for x, out in zip(spoilt.x, held, strict=True)
    )
    spoilt.keys = torch.cat(spoilt.x)
    learn(method, tasks, start=2)
    learn(spoilt, tasks, start=2)
    assert torch.equal(method.right, spoilt.right)


def test_the_middle_of_the_best_is_one_of_the_best() -> None:
    right = torch.tensor([[1, 5, 5, 5], [0, 0, 5, 0]])
    assert middle_of_best(right) == (0, 2)
    assert middle_of_best(torch.tensor([0, 3, 3, 3, 0])) == (2,)
    corners = torch.tensor([[7, 0, 7], [0, 0, 0], [7, 0, 7]])
    assert corners[middle_of_best(corners)] == 7


def test_training_moves_whose_keys_it_should() -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUTS[1])

    def state(train: str, upto: int) -> dict[str, Tensor]:
        spec = TipAdapter(alpha=1.0, beta=2.0, train=train, epochs=5, batch=8, lr=0.01)
        return learn(build_method(spec, setting), tasks[:upto]).state()

    plain, current, every = (state(train, 3) for train in ("none", "current", "all"))
    assert all(not torch.equal(plain[f"x.{t}"], current[f"x.{t}"]) for t in range(3))
    assert torch.equal(state("current", 1)["x.0"], current["x.0"])
    assert all(torch.equal(plain[f"x.{t}"], every[f"x.{t}"]) for t in range(3))
    assert not torch.allclose(every["keys"], torch.cat([every[f"x.{t}"] for t in range(3)]))
    assert "keys" not in plain and "keys" not in current


def test_few_are_cached_if_asked() -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUTS[1])
    few = learn(build_method(TipAdapter(per_class=2), setting), tasks)
    y = torch.cat([few.state()[f"y.{t}"] for t in range(3)])
    assert y.bincount().tolist() == [2] * CLASSES
    other = learn(build_method(TipAdapter(per_class=2), setting), made_tasks(setting, CUTS[0]))
    mine, theirs = few.state(), other.state()
    vectors = torch.cat([mine[f"x.{t}"] for t in range(3)])
    assert torch.equal(vectors[y.argsort(stable=True)], theirs["x.0"])


def test_it_needs_text() -> None:
    setting = made_setting()
    with pytest.raises(DataError, match="tip_adapter needs a text vector"):
        build_method(TipAdapter(), replace(setting, has_text=torch.zeros_like(setting.has_text)))


@pytest.mark.skipif(not CARS.exists(), reason="the real embedding sets are not here")
def test_they_learn_real_vectors() -> None:
    """Forty classes of Cars in four tasks."""
    setting, tasks = cars(classes=40, tasks=4)
    x, y = vectors_of(tasks), torch.cat([task.test.y for task in tasks])
    text = float((setting.zero_shot(x).argmax(dim=1) == y).float().mean())
    means = accuracy(learn(build_method(NCM(), setting), tasks), tasks)
    assert accuracy(learn(build_method(TipAdapter(), setting), tasks), tasks) > text + 0.03
    few = FeCAM(shrinkage=100.0)  # published for few samples
    assert accuracy(learn(build_method(few, setting), tasks), tasks) > means + 0.02
