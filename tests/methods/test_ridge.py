"""RAIL and RanPAC: the joint solution whatever the order and the cut; what they choose, refuse."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raycl.compute.local_pool import LocalPool
from raycl.config.methods import ZeroShot
from raycl.config.rivals import RAIL, RanPAC
from raycl.config.streams import Validation
from raycl.errors import ConfigError, DataError
from raycl.methods import conformance
from raycl.methods.build import build_method
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.keys import unit
from raycl.methods.parts.random_features import RandomFeatures
from raycl.methods.parts.ridge import Dual, Primal, Regression, lower_triangle, symmetric
from raycl.methods.parts.ridge_head import RIDGES, WEIGHTS, RidgeMethod
from raycl.observe.events import nobody
from raycl.streams.stream import Samples, Task
from tests.methods.made_tasks import (
    CARS,
    CLASSES,
    WIDTH,
    accuracy,
    cars,
    learn,
    made_setting,
    made_tasks,
)

VARIANTS = [
    RAIL(hidden=16),
    RAIL(form="dual"),
    RAIL(form="dual", fusion="none", ridge=0.1),
    RAIL(hidden=16, fusion="none", unseen="none"),
    RAIL(hidden=16, weight=None),
    RanPAC(hidden=16),
    RanPAC(hidden=16, fusion="text", unseen="gate"),
    RanPAC(hidden=16, ridge=0.1, fusion="text", weight=0.5),
]
CUTS = (((0, 1, 2, 3, 4, 5),), ((5, 3), (0,), (4, 1, 2)), ((2,), (1,), (0,), (5,), (4,), (3,)))


@pytest.mark.parametrize("spec", VARIANTS, ids=repr)
def test_they_hold_the_contract(spec: Any) -> None:
    findings = conformance.check_method(lambda setting: build_method(spec, setting))
    assert {f.what: f.fault for f in findings if not f.ok} == {}


def by_class(method: Any, x: Tensor) -> Tensor:
    """Scores with columns in the order of class ids."""
    return method.seen_scores(x)[:, torch.tensor(method.seen).argsort()]


@pytest.mark.parametrize(
    "spec",
    [
        RAIL(hidden=64),
        RAIL(form="dual"),
        RAIL(form="dual", fusion="none", ridge=1e-4),
        RanPAC(hidden=64, ridge=0.01),
        RanPAC(hidden=8, ridge=1e-3),  # fewer features than samples
    ],
    ids=repr,
)
def test_the_result_is_that_of_all_samples_at_once(spec: Any) -> None:
    setting = made_setting()
    joint = learn(build_method(spec, setting), made_tasks(setting, CUTS[0]))
    x = torch.cat([t.test.x for t in made_tasks(setting, CUTS[0])])
    for cut in CUTS[1:]:
        found = learn(build_method(spec, setting), made_tasks(setting, cut))
        assert torch.allclose(by_class(found, x), by_class(joint, x), rtol=1e-5, atol=2e-6), cut


def test_primal_is_the_textbook_solution() -> None:
    setting = made_setting()
    task = made_tasks(setting, CUTS[0])[0]
    features = RandomFeatures(setting, 24)
    predict = Primal(features).added(task.train.x, task.train.y, task.classes).solve(0.3)
    phi = features(task.train.x.double())
    labels = torch.nn.functional.one_hot(task.train.y, CLASSES).double()
    weight = torch.linalg.lstsq(
        torch.cat([phi, 0.3**0.5 * torch.eye(24, dtype=torch.float64)]),
        torch.cat([labels, torch.zeros(24, CLASSES, dtype=torch.float64)]),
    ).solution
    expected = features(task.test.x.double()) @ weight
    assert torch.allclose(predict(task.test.x).double(), expected, atol=1e-5)


def test_the_published_recursion_gives_the_same_weights() -> None:
    setting, ridge = made_setting(), 0.02
    features = RandomFeatures(setting, 32)
    inverse = torch.eye(32, dtype=torch.float64) / ridge
    weight = torch.zeros(32, CLASSES, dtype=torch.float64)
    regression: Regression = Primal(features)
    for task in made_tasks(setting, CUTS[1]):
        regression = regression.added(task.train.x, task.train.y, task.classes)
        phi = features(task.train.x.double())
        labels = torch.nn.functional.one_hot(task.train.y, CLASSES).double()
        gain = torch.linalg.inv(torch.eye(len(phi), dtype=torch.float64) + phi @ inverse @ phi.T)
        inverse = inverse - inverse @ phi.T @ gain @ phi @ inverse
        weight = weight + inverse @ phi.T @ (labels - phi @ weight)
    x = made_tasks(setting, CUTS[0])[0].test.x
    order = torch.tensor([c for classes in CUTS[1] for c in classes])
    expected = (features(x.double()) @ weight)[:, order]
    assert torch.allclose(regression.solve(ridge)(x).double(), expected, atol=1e-5)


def test_primal_and_dual_agree_on_one_kernel() -> None:
    """The dual solution of the primal's own kernel is the primal's solution."""

    class SameKernel(Dual):
        def kernel(self, a: Tensor, b: Tensor) -> Tensor:
            return features(a.double()) @ features(b.double()).T

    setting = made_setting()
    features = RandomFeatures(setting, 40)
    primal: Regression = Primal(features)
    dual: Regression = SameKernel(1.0, 10_000, WIDTH, setting.device)
    for task in made_tasks(setting, CUTS[1]):
        primal = primal.added(task.train.x, task.train.y, task.classes)
        dual = dual.added(task.train.x, task.train.y, task.classes)
    x = made_tasks(setting, CUTS[0])[0].test.x
    assert torch.allclose(primal.solve(0.05)(x), dual.solve(0.05)(x), atol=1e-5)


def test_they_learn_beyond_the_text() -> None:
    setting = made_setting(noise=1.5)
    tasks = made_tasks(setting, CUTS[1], noise=0.4)
    answers = torch.cat([setting.zero_shot(task.test.x).argmax(dim=1) for task in tasks])
    text = float((answers == torch.cat([task.test.y for task in tasks])).float().mean())
    assert 0.2 < text < 0.8
    for spec in (RAIL(hidden=256), RAIL(form="dual"), RanPAC(hidden=256)):
        assert accuracy(learn(build_method(spec, setting), tasks), tasks) > text + 0.05, spec


@pytest.mark.skipif(not CARS.exists(), reason="the real embedding sets are not here")
def test_on_real_vectors_text_helps_and_all_beat_it() -> None:
    """Forty classes of Cars in four tasks, in percent; see the table in the docs for all 196."""
    setting, tasks = cars(classes=40, tasks=4)
    text = accuracy(learn(build_method(ZeroShot(), setting), tasks), tasks)
    found = {
        spec: accuracy(learn(build_method(spec, setting), tasks), tasks)
        for spec in (
            RAIL(form="dual"),
            RAIL(form="dual", fusion="none"),
            RAIL(hidden=512),
            RAIL(hidden=512, fusion="none"),
        )
    }
    dual, dual_alone, primal, primal_alone = found.values()
    assert dual > dual_alone + 0.01 > text + 0.05
    assert primal > primal_alone + 0.01 > text


def test_features_are_those_of_the_seed_and_of_unit_length() -> None:
    setting = made_setting()
    x = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(0))
    big, again = RandomFeatures(setting, 20_000), RandomFeatures(setting, 20_000)
    assert torch.equal(big(x), again(3 * x)) or torch.allclose(big(x), again(3 * x), atol=1e-6)
    assert torch.allclose(big(x).square().sum(dim=1), torch.ones(50), atol=0.1)
    other = RandomFeatures(replace(setting, init_seed=1), 20_000)
    assert not torch.allclose(big(x), other(x), atol=1e-2)
    # the arc-cosine kernel of first order
    cos = (unit(x) @ unit(x).T).clamp(-1, 1).double()
    angle = cos.arccos()
    kernel = (angle.sin() + (torch.pi - angle) * cos) / torch.pi
    assert torch.allclose((big(x) @ big(x).T).double(), kernel, atol=0.06)


def test_the_ridge_is_chosen_by_the_first_tasks_alone() -> None:
    setting = replace(made_setting(), validation=Validation(seed=0, first_k=1))
    tasks = made_tasks(setting, CUTS[1])
    first = learn(build_method(RanPAC(hidden=64), setting), tasks[:1])
    last = learn(build_method(RanPAC(hidden=64), setting), tasks)
    assert isinstance(first, RidgeMethod) and isinstance(last, RidgeMethod)
    assert torch.equal(first.errors, last.errors) and first.errors.any()
    oracle = replace(setting, validation=Validation(seed=0, scope="all"))
    every = learn(build_method(RanPAC(hidden=64), oracle), tasks)
    assert isinstance(every, RidgeMethod) and not torch.equal(every.errors, last.errors)


def test_the_chosen_ridge_is_the_best_of_the_held_out_samples() -> None:
    setting = made_setting()
    task = made_tasks(setting, CUTS[0], noise=1.0)[0]
    method = learn(build_method(RanPAC(hidden=64), setting), [task])
    assert isinstance(method, RidgeMethod)
    labels = torch.nn.functional.one_hot(task.held_out.y, CLASSES)
    errors = []
    for ridge in RIDGES:
        fixed = Primal(RandomFeatures(setting, 64)).added(task.fit.x, task.fit.y, task.classes)
        errors.append(float((fixed.solve(ridge)(task.held_out.x) - labels).square().sum()))
    assert method.ridge == RIDGES[int(np.argmin(errors))]
    assert RIDGES[0] < method.ridge < RIDGES[-1]
    assert np.allclose(errors, method.errors, rtol=1e-3)


def test_a_weight_is_chosen_where_text_misleads_and_where_it_tells_all() -> None:
    def weight(setting: Setting) -> float:
        tasks = made_tasks(setting, CUTS[1], noise=1.0)
        method = learn(build_method(RanPAC(hidden=64, fusion="text"), setting), tasks)
        assert isinstance(method, RidgeMethod)
        return method.weight

    good = made_setting(noise=0.0)
    wrong = replace(good, text=good.text.roll(1, dims=0))
    assert weight(good) < weight(wrong)
    assert weight(wrong) >= 0.8 and set(WEIGHTS) >= {weight(good), weight(wrong)}


def test_the_trial_is_of_fit_samples_and_goes_when_nothing_more_is_chosen() -> None:
    setting = replace(made_setting(), validation=Validation(seed=0, first_k=2))
    tasks = made_tasks(setting, CUTS[1])
    spec = RanPAC(hidden=16, fusion="text")
    two, three = (learn(build_method(spec, setting), tasks[:n]) for n in (2, 3))
    assert isinstance(two, RidgeMethod) and isinstance(three, RidgeMethod)
    expected: Regression = Primal(RandomFeatures(setting, 16))
    for task in tasks[:2]:
        expected = expected.added(task.fit.x, task.fit.y, task.classes)
    for name, tensor in expected.state().items():
        assert torch.equal(two.state()[f"trial.{name}"], tensor)
    assert not any(name.startswith("trial.") for name in three.state())
    assert two.right.any() and torch.equal(two.right, three.right)


def test_without_held_out_samples_the_published_constants_stand() -> None:
    setting = made_setting()
    tasks = [replace(t, held_out=t.held_out_none()) for t in made_tasks(setting, CUTS[1])]
    method = learn(build_method(RanPAC(hidden=16, fusion="text"), setting), tasks)
    assert isinstance(method, RidgeMethod)
    assert (method.ridge, method.weight) == (0.02, 0.9)


def test_a_replayed_task_leaves_the_state_as_it_was_and_old_tensors_stay() -> None:
    setting = made_setting()
    tasks = made_tasks(setting, CUTS[1])
    for spec in (RanPAC(hidden=16), RAIL(form="dual")):
        two = learn(build_method(spec, setting), tasks[:2]).state()
        whole = learn(build_method(spec, setting), tasks).state()
        again = build_method(spec, setting)
        again.seen = tuple(c for task in tasks[:2] for c in task.classes)
        again.restore(two)
        learn(again, tasks, start=2)
        assert all(torch.equal(again.state()[name], tensor) for name, tensor in whole.items())
        kept = [n for n in two if n not in ("gram", "errors", "right")]  # no weight is chosen
        assert kept and all(torch.equal(two[name], whole[name]) for name in kept)


def test_text_is_asked_for_only_where_it_is_used() -> None:
    setting = made_setting()
    none = replace(
        setting, text=torch.zeros_like(setting.text), has_text=torch.zeros_like(setting.has_text)
    )
    tasks = made_tasks(setting, CUTS[1])
    for spec in (RanPAC(hidden=64), RAIL(form="dual", fusion="none", unseen="none")):
        assert accuracy(learn(build_method(spec, none), tasks), tasks) > 0.8
    for refused in (RAIL(), RanPAC(fusion="text"), RanPAC(unseen="gate")):
        with pytest.raises(DataError, match="text vector for every class"):
            build_method(refused, none)


def test_too_many_samples_are_refused_before_the_kernel_is_made() -> None:
    setting = made_setting()
    spec = RAIL(form="dual", most_samples=40)
    tasks = made_tasks(setting, CUTS[1])
    method = build_method(spec, setting)
    with pytest.raises(DataError, match=r"of at most 40(.|\n)*form=primal"):
        learn(method, tasks)
    many = RAIL(form="dual").most_samples + 1
    x, y = torch.ones(many, WIDTH), torch.zeros(many, dtype=torch.long)
    with pytest.raises(DataError, match=r"10001 samples(.|\n)*0\.7 GiB"):
        Dual(0.1, 10_000, WIDTH, setting.device).added(x, y, (0,))


def test_a_ridge_below_rounding_is_refused_in_words() -> None:
    setting = made_setting()
    task = made_tasks(setting, CUTS[0])[0]
    doubled = Samples(
        task.train.x.repeat(3, 1), task.train.y.repeat(3), np.arange(3 * len(task.train))
    )
    method = build_method(RAIL(form="dual", ridge=1e-300), setting)
    with pytest.raises(ConfigError, match=r"below rounding(.|\n)*raise it"):
        learn(method, [replace(task, train=doubled)])


def test_a_triangle_keeps_a_symmetric_matrix() -> None:
    root = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = root @ root.T
    assert torch.equal(symmetric(lower_triangle(matrix), 7).tril(), matrix.tril())
    assert torch.equal(symmetric(lower_triangle(matrix), 7), symmetric(lower_triangle(matrix), 7).T)
    assert lower_triangle(matrix).numel() == 28


def test_state_does_not_grow_with_samples_and_slowly_with_classes() -> None:
    setting = made_setting()
    few, many = (
        learn(build_method(RanPAC(hidden=32), setting), made_tasks(setting, CUTS[1], train=n))
        for n in (6, 30)
    )
    size = [sum(t.nbytes for t in m.state().values()) for m in (few, many)]
    assert size[0] == size[1] >= 8 * (32 * 33 // 2 + CLASSES * 32)


def test_five_thousand_classes_fit() -> None:
    """Sums, weights and scores in bounded chunks; no (classes, classes) anything."""
    width, classes = 32, 5_000
    generator = torch.Generator().manual_seed(0)
    text = unit(torch.randn(classes, width, generator=generator))
    setting = replace(
        made_setting(),
        class_names=tuple(f"c{c}" for c in range(classes)),
        text=text,
        has_text=torch.ones(classes, dtype=torch.bool),
    )
    method = build_method(RAIL(hidden=256), setting)
    for index, block in enumerate(torch.split(torch.arange(classes), 2_500)):
        x = text[block] + 0.02 * torch.randn(len(block), width, generator=generator)
        data = Samples(x, block, block.numpy())
        task = Task(index, tuple(block.tolist()), train=data, fit=data, held_out=data, test=data)
        method.seen += task.classes
        method.learn(task, Context(index, LocalPool(), nobody))
    found = method.seen_scores(text[:200]).argmax(dim=1)
    assert (found == torch.arange(200)).float().mean() > 0.9
    held = sum(t.nbytes for t in method.state().values())
    assert held < classes * 256 * 8 * 1.2


def orders(cuts: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(itertools.chain(*cut)) for cut in cuts]


def test_the_cuts_are_of_different_orders() -> None:
    assert len(set(orders(CUTS))) == len(CUTS)
